//! `/debug/pprof/`: profiles, at the paths and in the formats of Go's `net/http/pprof`.

use super::{
    HostStatus,
    response::{InternalBody, text},
};
use crate::{
    http::{Body, CancelCause, RequestContext},
    runtime::{HeapProfile, Profile, ProfileError, ProfileFormat, ProfileResult, Profiler},
};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use std::{
    fmt,
    future::{Future, pending},
    sync::{Arc, mpsc},
    time::Duration,
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// The path of the index, and the beginning of all others.
pub(super) const PATH: &str = "/debug/pprof/";

/// Length of a profile without `seconds`, as in Go.
const SECONDS_DEFAULT: Duration = Duration::from_secs(30);

/// The longest profile.
const SECONDS_MAX: Duration = Duration::from_secs(300);

const INDEX: &str = "\
profiles of this process, one at a time:
  /debug/pprof/profile?seconds=30   CPU time by stack, for `go tool pprof` (0.01 to 300 seconds)
  /debug/pprof/profile?seconds=30&format=flamegraph   the same as an SVG
  /debug/pprof/heap                 memory by stack, if the app has registered a heap profile
  /debug/pprof/cmdline              the program and its arguments, separated by NUL
";

/// Serves the profiles.
pub(crate) struct Profiles {
    profiler: Option<Box<dyn Profiler>>,
    heap: Option<HeapProfile>,
}

impl Profiles {
    pub(crate) fn new(profiler: Option<Box<dyn Profiler>>, heap: Option<HeapProfile>) -> Self {
        Self { profiler, heap }
    }

    /// Responds to a `GET` below [`PATH`].
    pub(super) async fn respond(
        self: Arc<Self>,
        status: Arc<HostStatus>,
        request: Request<Body>,
    ) -> Response<InternalBody> {
        let Some(name) = request.uri().path().strip_prefix(PATH) else {
            return text(StatusCode::NOT_FOUND, INDEX);
        };
        if name.is_empty() {
            return text(StatusCode::OK, INDEX);
        }
        let Some(profiler) = &self.profiler else {
            return failure(&ProfileError::Unavailable(
                "profiles exist only on Linux, in a process that runs on its own".to_owned(),
            ));
        };
        if is_taken_at(request.uri().path()) && is_from_other_site(&request) {
            return text(
                StatusCode::FORBIDDEN,
                "no profile: the request comes from a web page of another site\n",
            );
        }
        match name {
            "profile" => match Parameters::of(request.uri().query().unwrap_or_default()) {
                Ok(parameters) => cpu(&**profiler, &status, &request, parameters).await,
                Err(reason) => text(StatusCode::BAD_REQUEST, reason),
            },
            "heap" => match &self.heap {
                Some(heap) => heap_profile(&**profiler, &request, heap.clone()).await,
                None => text(
                    StatusCode::NOT_FOUND,
                    "the app has registered no heap profile (`Builder::heap_profile`)\n",
                ),
            },
            "cmdline" => text(StatusCode::OK, profiler.command_line().join("\0")),
            _ => text(StatusCode::NOT_FOUND, INDEX),
        }
    }
}

/// Whether requests for this path take a profile.
pub(super) fn is_taken_at(path: &str) -> bool {
    matches!(path.strip_prefix(PATH), Some("profile" | "heap"))
}

/// Whether a browser sends this request for a page of another site. Other clients do not send the
/// field.
fn is_from_other_site<B>(request: &Request<B>) -> bool {
    let sites = request.headers().get_all("sec-fetch-site");
    sites.iter().any(|site| site != "same-origin" && site != "none")
}

/// What to take, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parameters {
    span: Duration,
    format: ProfileFormat,
}

impl Parameters {
    /// Reads a query. Unknown parameters are ignored, since `go tool pprof` may send others.
    fn of(query: &str) -> Result<Self, String> {
        let mut parameters = Self { span: SECONDS_DEFAULT, format: ProfileFormat::Protobuf };
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "seconds" => {
                    let seconds = value.parse().ok().filter(|seconds: &f64| {
                        (0.01..=SECONDS_MAX.as_secs_f64()).contains(seconds)
                    });
                    let seconds = seconds.ok_or_else(|| {
                        let most = SECONDS_MAX.as_secs();
                        format!("seconds is {value:?}; expected a number from 0.01 to {most}\n")
                    })?;
                    parameters.span = Duration::from_secs_f64(seconds);
                }
                "format" => {
                    parameters.format = match value {
                        "flamegraph" => ProfileFormat::Flamegraph,
                        "protobuf" => ProfileFormat::Protobuf,
                        _ => {
                            return Err(format!(
                                "format is {value:?}; available: protobuf and flamegraph\n"
                            ));
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(parameters)
    }
}

/// Takes a CPU profile. A stop request ends it early, with the samples until then, as does a client
/// that leaves. The end of the internal server ends it without any, so that it does not delay the
/// exit.
async fn cpu(
    profiler: &dyn Profiler,
    status: &HostStatus,
    request: &Request<Body>,
    Parameters { span, format }: Parameters,
) -> Response<InternalBody> {
    let context = request.body().context();
    let (sampling, end) = mpsc::channel();
    let (begun, beginning) = oneshot::channel();
    let wait =
        wait_for_end(beginning, status.main.tokens.stopping.clone(), client_left(context), || {
            status.clock.sleep_until(status.clock.now() + span)
        });
    // The client may have left.
    let begun = Box::new(move || begun.send(()).unwrap_or_default());
    let mut taken = start(profiler, Profile::Cpu { format, begun, end });
    tokio::select! {
        biased;
        () = context.server_draining() => return exiting(),
        taken = &mut taken => return finished(taken, format.headers()),
        () = wait => drop(sampling),
    }
    tokio::select! {
        biased;
        () = context.server_draining() => exiting(),
        taken = taken => finished(taken, format.headers()),
    }
}

/// Waits until the sampling has begun and should end: after `sleep`, which then begins, at a stop
/// request, or when the client leaves. A profile that was requested after the stop request lasts
/// its whole time, so the token is read at the call.
fn wait_for_end<S: Future>(
    beginning: oneshot::Receiver<()>,
    stopping: CancellationToken,
    client_left: impl Future<Output = ()>,
    sleep: impl FnOnce() -> S,
) -> impl Future<Output = ()> {
    let is_cut = !stopping.is_cancelled();
    async move {
        if beginning.await.is_err() {
            // The result has the reason.
            return pending().await;
        }
        tokio::select! {
            biased;
            () = stopping.cancelled(), if is_cut => {}
            () = client_left => {}
            _ = sleep() => {}
        }
    }
}

/// Waits until the client leaves. A client that leaves after the drain is not noticed, because the
/// end of the drain cancels the context, too.
async fn client_left(context: &RequestContext) {
    context.cancelled().await;
    if context.cancel_cause() == Some(CancelCause::Shutdown) {
        pending::<()>().await;
    }
}

/// Starts a profile. The receiver fails if there is no thread for it, or if it panics.
fn start(profiler: &dyn Profiler, profile: Profile) -> oneshot::Receiver<ProfileResult> {
    let (result, taken) = oneshot::channel();
    // The client may have left.
    profiler.start(profile, Box::new(move |file| drop(result.send(file))));
    taken
}

async fn heap_profile(
    profiler: &dyn Profiler,
    request: &Request<Body>,
    heap: HeapProfile,
) -> Response<InternalBody> {
    let taken = start(profiler, Profile::Heap(heap));
    tokio::select! {
        biased;
        () = request.body().context().server_draining() => exiting(),
        taken = taken => finished(taken, [
            "application/octet-stream",
            "attachment; filename=\"heap\"",
        ]),
    }
}

impl ProfileFormat {
    /// The values of `Content-Type` and `Content-Disposition`.
    const fn headers(self) -> [&'static str; 2] {
        match self {
            Self::Protobuf => ["application/octet-stream", "attachment; filename=\"profile\""],
            Self::Flamegraph => ["image/svg+xml", "inline"],
        }
    }
}

fn finished(
    taken: Result<ProfileResult, oneshot::error::RecvError>,
    [kind, disposition]: [&'static str; 2],
) -> Response<InternalBody> {
    let lost = || Err(ProfileError::Failed("its thread could not start, or panicked".to_owned()));
    match taken.unwrap_or_else(|_| lost()) {
        Ok(file) => {
            let mut response = text(StatusCode::OK, Bytes::new());
            *response.body_mut() = Full::new(file.into());
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(disposition));
            let policy = HeaderValue::from_static("default-src 'none'");
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            response
        }
        Err(error) => failure(&error),
    }
}

fn failure(error: &ProfileError) -> Response<InternalBody> {
    match error {
        ProfileError::Busy => {
            text(StatusCode::CONFLICT, "a profile is being taken; one at a time\n")
        }
        ProfileError::Unavailable(reason) => {
            text(StatusCode::NOT_IMPLEMENTED, format!("no profile: {reason}\n"))
        }
        ProfileError::Failed(reason) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("the profile failed: {reason}\n"))
        }
    }
}

fn exiting() -> Response<InternalBody> {
    text(StatusCode::SERVICE_UNAVAILABLE, "no profile: the process exits\n")
}

impl fmt::Debug for Profiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profiles")
            .field("profiler", &self.profiler)
            .field("heap", &self.heap.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Poll;

    #[test]
    fn a_query_sets_the_time_and_the_format_within_bounds() {
        let span = |query| Parameters::of(query).map(|parameters| parameters.span);
        assert_eq!(span(""), Ok(Duration::from_secs(30)));
        assert_eq!(span("seconds=5&debug=1"), Ok(Duration::from_secs(5)));
        assert_eq!(span("seconds=0.25"), Ok(Duration::from_millis(250)));
        for bad in ["0", "-1", "301", "NaN", "inf", "five", ""] {
            let query = format!("seconds={bad}");
            let refusal = Parameters::of(&query).unwrap_err();
            assert!(refusal.contains(bad) && refusal.contains("300"), "{refusal}");
        }
        let format = |query| Parameters::of(query).map(|parameters| parameters.format);
        assert_eq!(format("format=flamegraph"), Ok(ProfileFormat::Flamegraph));
        assert_eq!(format("seconds=1"), Ok(ProfileFormat::Protobuf));
        assert!(format("format=png").unwrap_err().contains("png"));
    }

    #[test]
    fn requests_for_pages_of_other_sites_are_recognised() {
        let from = |sites: &[&str]| {
            let request = sites
                .iter()
                .fold(Request::get("/"), |request, site| request.header("Sec-Fetch-Site", *site));
            is_from_other_site(&request.body(()).unwrap())
        };
        for own in [&[][..], &["none"], &["same-origin"]] {
            assert!(!from(own), "{own:?}");
        }
        for other in [&["cross-site"][..], &["same-site"], &["none", "cross-site"]] {
            assert!(from(other), "{other:?}");
        }
    }

    /// Requests a profile without an end, and a stop before or after the request, but before the
    /// first sample. Returns whether the stop ends the profile.
    async fn is_cut_by_stop(before: bool) -> bool {
        let stopping = CancellationToken::new();
        let (begun, beginning) = oneshot::channel();
        if before {
            stopping.cancel();
        }
        let end = wait_for_end(beginning, stopping.clone(), pending(), pending::<()>);
        stopping.cancel();
        begun.send(()).unwrap();
        let mut end = Box::pin(end);
        std::future::poll_fn(|context| Poll::Ready(end.as_mut().poll(context).is_ready())).await
    }

    #[tokio::test]
    async fn a_stop_between_the_request_and_the_first_sample_ends_the_profile() {
        assert!(is_cut_by_stop(false).await);
        assert!(!is_cut_by_stop(true).await, "it was requested after the stop");
    }
}
