//! The responses of the internal server.

use super::{
    AllowedHosts, HostStatus,
    response::{InternalBody, text},
};
use crate::{hook::BoxFuture, http::Body, runtime::Address, unwind::AppValue};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use std::{collections::BTreeMap, convert::Infallible, fmt, future::Future, sync::Arc};
use tokio::{sync::Mutex, task::yield_now};

/// A route mounted by a user.
pub(crate) type InternalRoute =
    Arc<dyn Fn(Request<Body>) -> BoxFuture<Response<InternalBody>> + Send + Sync>;

/// Serves the requests to the internal server.
pub(crate) struct InternalService {
    status: Arc<HostStatus>,
    routes: BTreeMap<String, InternalRoute>,
    hosts: AllowedHosts,
    /// Held while a page is written; see [`Self::page`].
    turn: Arc<Mutex<()>>,
    #[cfg(feature = "metrics")]
    metrics: Arc<super::Metrics>,
    #[cfg(feature = "profiles")]
    profiles: Option<Arc<super::Profiles>>,
}

impl hyper::service::Service<Request<Body>> for InternalService {
    type Response = Response<InternalBody>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Response<InternalBody>, Infallible>>;

    fn call(&self, request: Request<Body>) -> Self::Future {
        let answering: EndpointResponse =
            match (self.misdirected(&request), self.routes.get(request.uri().path())) {
                (Some(refusal), _) => EndpointResponse::Now(refusal),
                (None, Some(route)) => EndpointResponse::Later(route(request)),
                (None, None) => self.answer(request),
            };
        Box::pin(async move {
            Ok(match answering {
                EndpointResponse::Now(response) => response,
                EndpointResponse::Later(response) => response.await,
            })
        })
    }
}

enum EndpointResponse {
    Now(Response<InternalBody>),
    Later(BoxFuture<Response<InternalBody>>),
}

impl InternalService {
    pub(crate) fn new(
        status: Arc<HostStatus>,
        routes: BTreeMap<String, InternalRoute>,
        hosts: AllowedHosts,
        #[cfg(feature = "metrics")] metrics: super::Metrics,
        #[cfg(feature = "profiles")] profiles: Option<super::Profiles>,
    ) -> Self {
        Self {
            status,
            routes,
            hosts,
            turn: Arc::default(),
            #[cfg(feature = "metrics")]
            metrics: Arc::new(metrics),
            #[cfg(feature = "profiles")]
            profiles: profiles.map(Arc::new),
        }
    }

    /// Returns the refusal if the request's host is not allowed. On a Unix socket no host is
    /// refused, since DNS rebinding cannot reach it.
    fn misdirected(&self, request: &Request<Body>) -> Option<Response<InternalBody>> {
        if matches!(request.body().context().local(), Address::Unix(_)) {
            return None;
        }
        let host = self.hosts.refused(request)?;
        Some(text(StatusCode::MISDIRECTED_REQUEST, self.hosts.reason(&host)))
    }

    fn answer(&self, request: Request<Body>) -> EndpointResponse {
        let endpoint: fn(&Self, Request<Body>) -> EndpointResponse = match request.uri().path() {
            "/" => |this, _| this.page_for_browsers(),
            "/liveness" | "/livez" => |this, _| EndpointResponse::Now(this.liveness()),
            "/readiness" | "/readyz" => |this, _| EndpointResponse::Now(this.readiness()),
            "/serving" => |this, _| EndpointResponse::Now(this.serving()),
            "/startupz" => |this, _| EndpointResponse::Now(this.startup()),
            "/status" => |this, _| this.status(),
            #[cfg(feature = "metrics")]
            "/metrics" => Self::metrics,
            #[cfg(feature = "profiles")]
            path if self.profiles.is_some() && path.starts_with(super::profiles::PATH) => {
                Self::profiles
            }
            _ => return EndpointResponse::Now(self.not_found()),
        };
        #[cfg(feature = "profiles")]
        if super::profiles::is_taken_at(request.uri().path()) && request.method() != Method::GET {
            // Its head alone would cost as much as the profile.
            return EndpointResponse::Now(not_allowed("only GET is allowed\n", "GET"));
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let reason = "only GET and HEAD are allowed\n";
            return EndpointResponse::Now(not_allowed(reason, "GET, HEAD"));
        }
        endpoint(self, request)
    }

    fn liveness(&self) -> Response<InternalBody> {
        match self.status.liveness_failure() {
            None => text(StatusCode::OK, "alive\n"),
            Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        }
    }

    fn readiness(&self) -> Response<InternalBody> {
        let failures = self.status.readiness_failures();
        if failures.is_empty() {
            return text(StatusCode::OK, "ready\n");
        }
        text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", failures.join("; ")))
    }

    fn serving(&self) -> Response<InternalBody> {
        let failures = self.status.serving_failures();
        if failures.is_empty() {
            return text(StatusCode::OK, "serving\n");
        }
        text(StatusCode::SERVICE_UNAVAILABLE, format!("not serving: {}\n", failures.join("; ")))
    }

    fn startup(&self) -> Response<InternalBody> {
        if self.status.is_started() {
            text(StatusCode::OK, "started\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "starting\n")
        }
    }

    /// Responds with a page that takes longer to write than a probe's response. Pages are written
    /// one at a time, with a yield before each. A flood of requests for pages therefore does not
    /// delay the probes (P16).
    fn page<F>(&self, write: F) -> EndpointResponse
    where
        F: FnOnce() -> Response<InternalBody> + Send + 'static,
    {
        let turn = self.turn.clone();
        EndpointResponse::Later(Box::pin(async move {
            let _turn = turn.lock().await;
            yield_now().await;
            write()
        }))
    }

    fn page_for_browsers(&self) -> EndpointResponse {
        let status = self.status.clone();
        let paths = self.paths();
        self.page(move || {
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            let Ok(page) = super::page::write(&status.status(), &paths) else {
                return text(StatusCode::INTERNAL_SERVER_ERROR, "cannot write the page\n");
            };
            let mut response = text(StatusCode::OK, page);
            let headers = response.headers_mut();
            for (name, value) in [
                (header::CONTENT_TYPE, "text/html; charset=utf-8"),
                (header::CONTENT_SECURITY_POLICY, super::page::POLICY),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::REFERRER_POLICY, "no-referrer"),
            ] {
                headers.insert(name, HeaderValue::from_static(value));
            }
            response
        })
    }

    fn not_found(&self) -> Response<InternalBody> {
        let paths = self.paths().join(", ");
        text(StatusCode::NOT_FOUND, format!("not found; available: /, {paths}\n"))
    }

    /// All paths except `/`: the built-in ones, and the app's. The page links to them.
    fn paths(&self) -> Vec<String> {
        let mut paths: Vec<String> =
            ["/status", "/liveness", "/readiness", "/serving", "/startupz"]
                .map(str::to_owned)
                .into();
        #[cfg(feature = "metrics")]
        paths.push("/metrics".to_owned());
        #[cfg(feature = "profiles")]
        if self.profiles.is_some() {
            paths.push(super::profiles::PATH.to_owned());
        }
        paths.extend(self.routes.keys().filter(|path| *path != "/").cloned());
        paths
    }

    fn status(&self) -> EndpointResponse {
        let status = self.status.clone();
        self.page(move || {
            let mut response = text(StatusCode::OK, format!("{:#}\n", status.status()));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        })
    }

    #[cfg(feature = "metrics")]
    #[expect(clippy::needless_pass_by_value, reason = "the signature of all endpoints")]
    fn metrics(&self, request: Request<Body>) -> EndpointResponse {
        let format = super::metrics::Format::of(request.headers());
        let metrics = self.metrics.clone();
        self.page(move || {
            let Ok(page) = metrics.encode(format) else {
                return text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode the metrics\n");
            };
            let mut response = text(StatusCode::OK, page);
            let headers = response.headers_mut();
            let kind = HeaderValue::from_static(format.content_type());
            headers.insert(header::CONTENT_TYPE, kind);
            headers.insert(header::VARY, HeaderValue::from_static("accept"));
            response
        })
    }

    #[cfg(feature = "profiles")]
    fn profiles(&self, request: Request<Body>) -> EndpointResponse {
        let Some(profiles) = self.profiles.clone() else {
            return EndpointResponse::Now(self.not_found());
        };
        EndpointResponse::Later(Box::pin(profiles.respond(self.status.clone(), request)))
    }
}

/// RFC 9110 §15.5.6: a 405 must list the allowed methods.
fn not_allowed(reason: &'static str, methods: &'static str) -> Response<InternalBody> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, reason);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

/// Boxes a user's handler.
pub(crate) fn route<F, Fut, B>(handler: F) -> InternalRoute
where
    F: Fn(Request<Body>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Response<B>> + Send + 'static,
    B: Into<Bytes>,
{
    let handler = AppValue::new(handler);
    Arc::new(move |request| {
        let answering = handler(request);
        Box::pin(async move { answering.await.map(|body| Full::new(body.into())) })
    })
}

impl fmt::Debug for InternalService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InternalService")
            .field("routes", &self.routes.keys())
            .finish_non_exhaustive()
    }
}
