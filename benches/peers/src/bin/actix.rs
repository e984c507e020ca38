//! actix-web, with one worker per core.

use actix_web::{App, HttpResponse, HttpServer, rt::System, web};
use lameduck_peers::{
    HELLO, KIND, SLOW, SLOW_TIME, address, announce, cores, listen, speaks_http2,
};
use std::io;

fn main() -> io::Result<()> {
    System::new().block_on(async {
        let listener = listen(address()?)?;
        let at = listener.local_addr()?;
        let app = || App::new().route("/", web::get().to(hello)).route(SLOW, web::get().to(slow));
        let server =
            HttpServer::new(app).workers(cores().get()).tcp_nodelay(true).max_connections(100_000);
        let server = if speaks_http2() {
            server.listen_auto_h2c(listener)?
        } else {
            server.listen(listener)?
        }
        .run();
        announce(at)?;
        server.await
    })
}

async fn hello() -> HttpResponse {
    HttpResponse::Ok().content_type(KIND).body(HELLO)
}

async fn slow() -> HttpResponse {
    tokio::time::sleep(SLOW_TIME).await;
    hello().await
}
