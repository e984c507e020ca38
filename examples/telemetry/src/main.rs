//! An access log and an OpenTelemetry span for each request, with any outcome. Both are written by
//! separate threads, so no request waits for them, and both are flushed at the end.
//!
//! Here the spans go to standard output. For a collector, replace the exporter by that of
//! `opentelemetry-otlp`; the rest stays.

use axum::{Router, routing::get};
use lameduck::{
    EndedRequest, Host, RunOptions, Settings,
    cli::logging::{self, LogFormat},
};
use opentelemetry::{
    KeyValue,
    trace::{Span, SpanBuilder, SpanKind, Status, Tracer, TracerProvider},
};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    sync::mpsc::{SyncSender, sync_channel},
    thread::{self, JoinHandle},
    time::SystemTime,
};

/// Lines that wait to be written. More are dropped: a full disk must not hold up requests.
const LINES_MAX: usize = 10_000;

fn main() {
    let log = logging::install(LogFormat::Auto, None).unwrap_or_else(|error| error.exit());
    let exporter = opentelemetry_stdout::SpanExporter::default();
    // A thread of the provider exports the spans in batches.
    let spans = SdkTracerProvider::builder().with_batch_exporter(exporter).build();
    let tracer = spans.tracer("access");
    let (lines, writing) = access_log();
    let finish = RunOptions::new().finish(move |_| {
        // The host has dropped its observer, so the last line was sent.
        let _ = writing.join();
        let _ = spans.shutdown();
        drop(log);
    });
    lameduck::run_with(finish, || {
        let host = Host::builder(Settings::from_env()?).on_outcome(move |request| {
            let _ = lines.try_send(line(request));
            trace(&tracer, request);
        });
        Ok(host.serve(Router::new().route("/", get(|| async { "hello" }))))
    })
}

/// Starts the thread that writes `ACCESS_LOG`, by default `/dev/stdout`. It ends with its sender.
fn access_log() -> (SyncSender<String>, JoinHandle<io::Result<()>>) {
    let (lines, queue) = sync_channel::<String>(LINES_MAX);
    let writing = thread::spawn(move || {
        let path = std::env::var("ACCESS_LOG").unwrap_or_else(|_| "/dev/stdout".to_owned());
        let mut file = BufWriter::new(File::options().append(true).create(true).open(path)?);
        while let Ok(line) = queue.recv() {
            file.write_all(line.as_bytes())?;
            // Everything that waits is written at once.
            for line in queue.try_iter() {
                file.write_all(line.as_bytes())?;
            }
            file.flush()?;
        }
        Ok(())
    });
    (lines, writing)
}

/// A line of the access log: client, method, path, protocol, status, bytes, milliseconds, outcome.
fn line(request: &EndedRequest<'_>) -> String {
    let status = request.status.map_or("-".to_owned(), |status| status.as_u16().to_string());
    format!(
        "{} {} {} {:?} {status} {} {:.3} {}\n",
        request.peer,
        request.method,
        request.path,
        request.version,
        request.body_bytes,
        request.duration.as_secs_f64() * 1e3,
        request.outcome.name(),
    )
}

fn trace(tracer: &SdkTracer, request: &EndedRequest<'_>) {
    let end = SystemTime::now();
    let status = request.status.map_or(0, |status| i64::from(status.as_u16()));
    let builder = SpanBuilder::from_name(format!("{} {}", request.method, request.path))
        .with_kind(SpanKind::Server)
        .with_start_time(end - request.duration)
        .with_attributes([
            KeyValue::new("http.request.method", request.method.to_string()),
            KeyValue::new("url.path", request.path.to_owned()),
            KeyValue::new("http.response.status_code", status),
            KeyValue::new("lameduck.outcome", request.outcome.name()),
            KeyValue::new("lameduck.phase", request.phase.name()),
        ]);
    let mut span = tracer.build(builder);
    if status == 0 || status >= 500 {
        span.set_status(Status::error(request.outcome.name()));
    }
    span.end_with_timestamp(end);
}
