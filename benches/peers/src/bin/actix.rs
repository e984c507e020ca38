//! actix-web, one of its workers a core.

use actix_web::{App, HttpResponse, HttpServer, rt::System, web};
use lameduck_peers::{HELLO, KIND, address, announce, cores, listen};
use std::io;

fn main() -> io::Result<()> {
    System::new().block_on(async {
        let listener = listen(address()?)?;
        let at = listener.local_addr()?;
        let app = || App::new().route("/", web::get().to(async || HttpResponse::Ok().content_type(KIND).body(HELLO)));
        let server =
            HttpServer::new(app).workers(cores().get()).tcp_nodelay(true).max_connections(100_000).listen(listener)?.run();
        announce(at)?;
        server.await
    })
}
