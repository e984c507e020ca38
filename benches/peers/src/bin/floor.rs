//! The floor: sends a fixed response to every read, without a parser. Only tokio and the kernel
//! remain.

use lameduck_peers::{HELLO, KIND, address, announce, listen, stopped};
use std::{io, sync::Arc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Builder,
};

fn main() -> io::Result<()> {
    let date = "Thu, 01 Jan 1970 00:00:00 GMT";
    let length = HELLO.len();
    let response = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {KIND}\r\ncontent-length: {length}\r\ndate: {date}\r\n\r\n{HELLO}"
    );
    let response: Arc<str> = response.into();
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::from_std(listen(address()?)?)?;
        announce(listener.local_addr()?)?;
        tokio::select! {
            served = serve(listener, response) => served,
            stopped = stopped() => stopped,
        }
    })
}

async fn serve(listener: TcpListener, response: Arc<str>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(speak(stream, response.clone()));
    }
}

async fn speak(mut stream: TcpStream, response: Arc<str>) -> io::Result<()> {
    let mut buffer = [0; 512];
    while stream.read(&mut buffer).await? > 0 {
        stream.write_all(response.as_bytes()).await?;
    }
    Ok(())
}
