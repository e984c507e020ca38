//! A whole connection against a live host over an in-memory pipe: any bytes, in pieces of any size,
//! with the stop at any point.
//!
//! The first bytes select piece size, pauses, the point of the stop, and how the client ends. The
//! host must stop within its bound, and every request that was counted as started must have one
//! outcome (P5). Nothing may panic.

use super::{
    Draw,
    client_time::{pause_for, within},
    pipe::Pipes,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use lameduck::{
    Body, Host, Report, RequestContext, Settings,
    lifecycle::Plan,
    runtime::{Clock, Runtime, Seed},
};
use lameduck_sim::{SimClock, SimSpawner, Trace, scripted_signals};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// HTTP/1: the bytes follow a valid request, so that they also reach a connection that was used.
pub fn http1(bytes: &[u8]) {
    let (script, rest) = bytes.split_at(bytes.len().min(SCRIPT));
    run(script, &[b"GET /first HTTP/1.1\r\nhost: x\r\n\r\n", rest].concat());
}

/// HTTP/2: the bytes follow a valid preface and SETTINGS.
pub fn http2(bytes: &[u8]) {
    let (script, rest) = bytes.split_at(bytes.len().min(SCRIPT));
    run(script, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", rest].concat());
}

/// The bytes as they are: the sniffer sees the first of them.
pub fn raw(bytes: &[u8]) {
    let (script, rest) = bytes.split_at(bytes.len().min(SCRIPT));
    run(script, rest);
}

/// Number of bytes that select how the others are sent.
const SCRIPT: usize = 6;

/// More simulated time than the slowest client and the plan below can take.
const LIMIT: Duration = Duration::from_secs(3600);

fn run(script: &[u8], sent: &[u8]) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let Ok(runtime) = runtime else { return };
    let report = runtime.block_on(live(script.to_vec(), sent.to_vec()));
    let requests = report.requests;
    assert_eq!(
        requests.started,
        requests.finished + requests.timed_out + requests.aborted + requests.gone,
        "P5: {requests:?}"
    );
    assert!(
        report.shutdown <= report.worst_case + Duration::from_millis(50),
        "P7: {:?} of {:?}",
        report.shutdown,
        report.worst_case
    );
    assert_eq!(report.connections.open(), 0, "P6: {:?}", report.connections);
}

async fn live(script: Vec<u8>, sent: Vec<u8>) -> Report {
    let mut draw = Draw(&script);
    let piece = [1, 2, 3, 7, 64, 1000, 20_000][usize::from(draw.byte()) % 7];
    let pause = Duration::from_millis([0, 0, 1, 30, 400][usize::from(draw.byte()) % 5]);
    let stop_after = usize::from(draw.byte()) * sent.len() / 255;
    let end = draw.byte();
    let lame_duck = Duration::from_millis(u64::from(draw.byte()) * 4);
    let capacity = [1, 16, 1024, 65_536][usize::from(draw.byte()) % 4];

    let clock: Arc<dyn Clock> = Arc::new(SimClock::new());
    let trace = Trace::new();
    let (_signals, signals) = scripted_signals("host", trace.clone());
    let spawner = SimSpawner::new("host", trace, clock.clone());
    let pipes = Pipes::new();
    let plan = Plan::new()
        .lame_duck(lame_duck)
        .drain(Duration::from_secs(3))
        .cancel(Duration::from_secs(1));
    let host =
        Host::builder(Settings::default().plan(plan).request_timeout(Some(Duration::from_secs(2))))
            .serve_hyper(service_fn(answer));
    let stop = host.shutdown_handle();
    let life = host.run_in(Runtime {
        clock,
        network: pipes.clone(),
        signals,
        spawner: spawner.clone(),
        seed: Seed(7),
    });

    let client = async {
        // The host begins to listen within its first polls.
        pause_for(Duration::from_millis(1)).await;
        let Some(mut pipe) = pipes.connect(capacity) else { return };
        let mut written = 0;
        for part in sent.chunks(piece) {
            if written <= stop_after && stop_after < written + part.len() {
                stop.stop();
            }
            written += part.len();
            let write = async { pipe.write_all(part).await.is_ok() && pipe.flush().await.is_ok() };
            if within(Duration::from_secs(5), write).await != Some(true) {
                break;
            }
            if !pause.is_zero() {
                pause_for(pause).await;
            }
        }
        if end % 3 == 1 {
            let _ = pipe.shutdown().await;
        }
        if end % 3 != 2 {
            let mut answers = Vec::new();
            let _ = within(Duration::from_secs(20), pipe.read_to_end(&mut answers)).await;
        }
        stop.stop();
        drop(pipe);
        std::future::pending::<()>().await;
    };
    let lived = async {
        tokio::select! {
            biased;
            report = life => report,
            () = client => unreachable!("the client waits for ever"),
        }
    };
    let report = within(LIMIT, lived).await;
    spawner.process_exited();
    report.unwrap_or_else(|| panic!("P7: the host did not stop within {LIMIT:?}"))
}

async fn answer(request: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
    let context = request.extensions().get::<RequestContext>().cloned();
    let body = match request.uri().path().len() % 4 {
        0 => request
            .into_body()
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default(),
        1 => {
            if let Some(context) = context {
                context.cancelled().await;
            }
            Bytes::from_static(b"cancelled")
        }
        2 => Bytes::from(vec![b'x'; 40_000]),
        _ => Bytes::from_static(b"hello"),
    };
    Ok(Response::new(Full::new(body)))
}
