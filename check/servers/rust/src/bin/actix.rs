//! actix-web, which handles SIGTERM itself, with its `shutdown_timeout`.

use actix_web::{App, Error, HttpRequest, HttpResponse, HttpServer, rt::System, web};
use lameduck_check_servers::{DRAIN, Parameters, address, bytes, pieces};
use std::{io, time::Duration};

fn main() -> io::Result<()> {
    System::new().block_on(async {
        let app = || {
            App::new()
                .route("/", web::get().to(|| async { "hello world" }))
                .route("/slow", web::get().to(slow))
                .route("/echo", web::post().to(|body: web::Bytes| async { body }))
                .route("/stream", web::get().to(stream))
                .route("/big", web::get().to(big))
                .route("/ws", web::get().to(upgrade))
        };
        HttpServer::new(app).shutdown_timeout(DRAIN.as_secs()).bind_auto_h2c(address())?.run().await
    })
}

async fn slow(parameters: web::Query<Parameters>) -> &'static str {
    tokio::time::sleep(Duration::from_millis(parameters.ms)).await;
    "slow"
}

async fn stream(parameters: web::Query<Parameters>) -> HttpResponse {
    HttpResponse::Ok().streaming(pieces(parameters.ms))
}

async fn big(parameters: web::Query<Parameters>) -> HttpResponse {
    let length = parameters.bytes as u64;
    HttpResponse::Ok().no_chunking(length).streaming(bytes(parameters.bytes))
}

async fn upgrade(request: HttpRequest, body: web::Payload) -> Result<HttpResponse, Error> {
    let (response, mut session, mut messages) = actix_ws::handle(&request, body)?;
    actix_web::rt::spawn(async move {
        while let Some(Ok(message)) = messages.recv().await {
            if let actix_ws::Message::Text(text) = message
                && session.text(text).await.is_err()
            {
                break;
            }
        }
    });
    Ok(response)
}
