//! The handlers of these tests, and their bodies.

use super::script::lock;
use crate::http::exchange::request_body::Body;
use bytes::Bytes;
use futures_util::{
    FutureExt, StreamExt,
    stream::{once, poll_fn},
};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use std::{
    cell::Cell,
    convert::Infallible,
    future::{Future, pending},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::Notify;

/// The handlers. They run until the test releases them, whatever their context says.
#[derive(Clone, Default)]
pub(super) struct Routes {
    release: Arc<Notify>,
    meanwhile: Meanwhile,
    uploaded: Uploaded,
}

/// How many bytes of its body an upload had, as `Ok` if they were all.
type Uploaded = Arc<Mutex<Option<Result<usize, usize>>>>;

/// What another thread does while a handler or a body is polled.
type Meanwhile = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

impl Routes {
    pub(super) fn release(&self) {
        self.release.notify_one();
    }

    /// Releases the handler. While it or its body is polled, another thread does this.
    pub(super) fn release_with(&self, meanwhile: impl FnOnce() + Send + 'static) {
        *lock(&self.meanwhile) = Some(Box::new(meanwhile));
        self.release();
    }

    pub(super) fn uploaded(&self) -> Option<Result<usize, usize>> {
        *lock(&self.uploaded)
    }

    /// Reads a body after the response. Waits for the release with all of it, on `/keeps`, or with
    /// its first bytes, on `/ignores`.
    async fn upload(self, mut body: Body, path: String) {
        let mut read = 0;
        let uploaded = loop {
            match body.frame().await {
                Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) => break Err(read),
                None => break Ok(read),
            }
            if path == "/ignores" {
                let _ = body.frame().now_or_never();
                self.release.notified().await;
                break Err(read);
            }
        };
        if path == "/keeps" {
            self.release.notified().await;
        }
        drop(body);
        *lock(&self.uploaded) = Some(uploaded);
    }

    /// Runs what the test has set when it is polled after its release.
    async fn meanwhile(&self) {
        self.release.notified().await;
        let meanwhile = lock(&self.meanwhile).take().unwrap();
        meanwhile();
    }

    /// The same, then pending for ever.
    async fn meanwhile_and_waits<T>(self) -> T {
        self.meanwhile().await;
        pending().await
    }
}

type ResponseBody = UnsyncBoxBody<Bytes, Infallible>;

impl hyper::service::Service<Request<Body>> for Routes {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Body>) -> Self::Future {
        let (release, routes) = (self.release.clone(), self.clone());
        assert!(request.uri().path() != "/no-future", "no future, on purpose");
        Box::pin(async move {
            let whole = |text: &[u8]| Full::new(Bytes::copy_from_slice(text)).boxed_unsync();
            let (status, fields) = head(request.uri().path());
            let mut response = Response::new(match request.uri().path() {
                "/waits" => {
                    release.notified().await;
                    whole(b"waited")
                }
                "/drops" => {
                    drop(request.into_body());
                    pending().await
                }
                "/streams" => StreamBody::new(async_stream(release)).boxed_unsync(),
                "/meanwhile" => routes.meanwhile_and_waits().await,
                "/meanwhile-and-ends" => {
                    routes.meanwhile().await;
                    whole(b"hello")
                }
                "/streams-meanwhile" => {
                    let first = once(async { Ok(Frame::data(Bytes::from_static(b"part"))) });
                    StreamBody::new(first.chain(once(routes.meanwhile_and_waits()))).boxed_unsync()
                }
                "/reads" => match request.into_body().collect().await {
                    Ok(body) => whole(&body.to_bytes()),
                    Err(_) => whole(b"no body"),
                },
                "/collects" => {
                    let (mut body, mut frames) = (request.into_body(), Vec::new());
                    while let Some(Ok(frame)) = body.frame().await {
                        frames.extend(frame.into_data());
                    }
                    let held = |frame: Bytes| frame.try_into_mut().map_or(0, |own| own.capacity());
                    let own = frames.into_iter().map(held).filter(|held| (1..100).contains(held));
                    whole(format!("{} frames", own.count()).as_bytes())
                }
                "/holds" => {
                    let mut body = request.into_body();
                    while let Some(Ok(_)) = body.frame().await {}
                    release.notified().await;
                    whole(format!("{body:?}").as_bytes())
                }
                "/large" => whole(&[b'x'; 50_000]),
                "/huge" => whole(&vec![b'x'; 2_000_000]),
                "/middling" => whole(&[b'x'; 6_000]),
                "/halves" => Halves { left: 2, is_ready: true }.boxed_unsync(),
                "/stuck" => Stuck { promised: 5 }.boxed_unsync(),
                "/endless" => {
                    release.notified().await;
                    Stuck { promised: 0 }.boxed_unsync()
                }
                "/panics" => Panics::default().boxed_unsync(),
                "/breaks" => {
                    let _ = request.into_body().collect().await;
                    StreamBody::new(poll_fn(|_| panic!("on purpose"))).boxed_unsync()
                }
                "/late" => {
                    let context = request.body().context().clone();
                    let _ = request.into_body().collect().await;
                    context.set_timeout(Some(Duration::ZERO));
                    pending().await
                }
                "/closes-and-fails" => Fails.boxed_unsync(),
                path @ ("/spawns" | "/ignores" | "/keeps") => {
                    let (path, body) = (path.to_owned(), request.into_body());
                    body.context().clone().spawn(routes.upload(body, path));
                    whole(b"accepted")
                }
                "/cookies" => {
                    let cookies = request.headers().get_all(header::COOKIE).iter();
                    let cookies = cookies.map(HeaderValue::as_bytes).collect::<Vec<_>>();
                    whole(&cookies.join(&b'|'))
                }
                _ => whole(b"hello"),
            });
            *response.status_mut() = status;
            for (name, value) in fields {
                response.headers_mut().append(*name, HeaderValue::from_static(value));
            }
            Ok(response)
        })
    }
}

/// The status and the fields of a response.
fn head(path: &str) -> (StatusCode, &'static [(&'static str, &'static str)]) {
    match path {
        "/closes" | "/closes-and-fails" => (StatusCode::OK, &[("connection", "close")]),
        "/requires-upgrade" => (
            StatusCode::UPGRADE_REQUIRED,
            &[
                ("upgrade", "websocket"),
                ("connection", "Keep-Alive, upgrade"),
                ("keep-alive", "timeout=5"),
            ],
        ),
        _ => (StatusCode::OK, &[]),
    }
}

/// A body that never comes to its end, nor to its first byte.
struct Stuck {
    promised: u64,
}

impl http_body::Body for Stuck {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.promised)
    }
}

/// A body of eight bytes, of which the second half is ready one poll after the first. Its length is
/// that of what is left.
struct Halves {
    left: u64,
    is_ready: bool,
}

impl http_body::Body for Halves {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if !self.is_ready {
            self.is_ready = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        (self.left, self.is_ready) = (self.left - 1, false);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"half")))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(4 * self.left)
    }
}

/// A body that states a length, and ends without a byte.
struct Fails;

impl http_body::Body for Fails {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(5)
    }
}

/// A body that panics when its length is needed for the second time.
#[derive(Default)]
struct Panics {
    was_asked: Cell<bool>,
}

impl http_body::Body for Panics {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        assert!(!self.was_asked.replace(true), "asked for its length twice, on purpose");
        SizeHint::with_exact(2)
    }
}

/// One frame at once, the second when the test releases it.
fn async_stream(
    release: Arc<Notify>,
) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send {
    futures_util::stream::unfold(0, move |sent| {
        let release = release.clone();
        async move {
            if sent == 2 {
                return None;
            }
            if sent == 1 {
                release.notified().await;
            }
            Some((Ok(Frame::data(Bytes::from_static(b"part"))), sent + 1))
        }
    })
}
