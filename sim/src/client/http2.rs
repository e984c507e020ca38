//! HTTP/2 clients: concurrent requests on one connection, at given times.

use super::{
    ClientId, Connect, GRPC_STATUS, Head, How, RequestFailure, RequestSpec, ResponseSummary,
    goaway::{FramePart, GoawayRecorder, Settled},
    goes_on::HiddenGoaway,
    grpc::Reply,
    http1,
    hyper_runtime::{Tracked, WorldTimer},
    odd_frames::{OddFrames, Pongs},
};
use crate::{task_count::counted, trace::Fnv64};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2::{Builder, SendRequest},
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, error::Error, io, time::Duration};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// When a client sends its first request on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// At once.
    AtOnce,
    /// After the server's SETTINGS, and never after a GOAWAY.
    AfterSettings,
}

/// Starts each of `asks` a pause after the one before, without waiting for responses. All use one
/// connection. Once a GOAWAY has closed it, requests not yet started use a new one. Returns when
/// every request has ended.
pub async fn multiplexed<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    asks: impl IntoIterator<Item = (Duration, RequestSpec)>,
    first: First,
) {
    let tasks = Tracked::default();
    let mut requests = JoinSet::new();
    let mut open: Option<ClientConnection> = None;
    for (pause, ask) in asks {
        super::pause(pause).await;
        // For a large response, use the small window, which the client extends only as it reads.
        let window = ask.target.starts_with("/bytes").then_some(UNREAD_WINDOW);
        let mut link = match open.take() {
            Some(link) if !link.sender.is_closed() => link,
            Some(_) | None => {
                match ClientConnection::open(client_id, connect, &tasks, window).await {
                    Ok(link) => link,
                    Err(_) => break,
                }
            }
        };
        if first == First::AfterSettings && !link.may_ask(client_id.max_wait()).await {
            continue;
        }
        let (mut sender, connection, earlier) =
            (link.sender.clone(), link.connection, link.requests);
        link.requests += 1;
        open = Some(link);
        let client_id = client_id.clone();
        requests.spawn(counted(async move {
            one(&client_id, &mut sender, &ask, connection, earlier).await;
        }));
    }
    while requests.join_next().await.is_some() {}
    if let Some(link) = open.take_if(|_| client_id.withholds_pongs()) {
        // Its server has to end the connection.
        link.stay(client_id).await;
    }
    drop(open);
    tasks.end().await;
}

/// Opens a connection and makes one call on it. Returns the response if that was complete.
pub(super) async fn call<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    ask: &RequestSpec,
    step: usize,
) -> Option<ResponseSummary> {
    let tasks = Tracked::default();
    let mut link = ClientConnection::open(client_id, connect, &tasks, None).await.ok()?;
    let response = one(client_id, &mut link.sender, ask, link.connection, 0).await;
    client_id.step(step);
    drop(link);
    tasks.end().await;
    response
}

/// Sends all requests at once on one connection, and reads only the response heads. After `leave`
/// it drops the responses, which resets unfinished streams. Then it sends one of the requests
/// again, reads its response, and waits for the server to end the connection.
pub async fn given_up<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    asks: &[RequestSpec],
    leave: Duration,
) {
    let tasks = Tracked::default();
    let Ok(link) = ClientConnection::open(client_id, connect, &tasks, Some(UNREAD_WINDOW)).await
    else {
        return;
    };
    let mut requests = JoinSet::new();
    for (ask, earlier) in asks.iter().zip(0_u64..) {
        let (client_id, mut sender, ask, connection) =
            (client_id.clone(), link.sender.clone(), ask.clone(), link.connection);
        requests.spawn(async move {
            let request = client_id.asks(&ask, connection, earlier);
            let Ok(ask) = in_http2(&ask.named(&client_id.name_of(request))) else { return };
            let asked = async {
                match sender.send_request(ask).await {
                    Ok(response) => {
                        client_id.head(request, &Head::of_http2(&response));
                        super::pause(leave).await;
                        Ok(response)
                    }
                    Err(error) => Err(RequestFailure::new(how(&error, Stage::Head), 0)),
                }
            };
            tokio::select! {
                biased;
                end = asked => match end {
                    Ok(_unread) => client_id.tell("leaves", &[("stream", request.into())]),
                    Err(failure) => client_id.ended(request, &Err(failure)),
                },
                () = super::pause(client_id.max_wait()) => {
                    client_id.ended(request, &Err(RequestFailure::new(How::TimedOut, 0)));
                }
            }
        });
    }
    while requests.join_next().await.is_some() {}
    // What was reset must not concern a later request.
    if let Some(ask) = asks.first().filter(|_| leave < client_id.max_wait()) {
        let earlier = asks.len() as u64;
        one(client_id, &mut link.sender.clone(), ask, link.connection, earlier).await;
    }
    link.stay(client_id).await;
    drop(link);
    tasks.end().await;
}

/// Sends all requests at once on one connection. After `pause` it sends `part` of a further frame,
/// and nothing more, and reads until the server ends the connection.
pub async fn half_framed<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    asks: &[RequestSpec],
    pause: Duration,
    part: FramePart,
) {
    let tasks = Tracked::default();
    let Ok(link) = ClientConnection::open(client_id, connect, &tasks, None).await else {
        return;
    };
    let mut requests = JoinSet::new();
    for (ask, earlier) in asks.iter().zip(0_u64..) {
        let (client_id, mut sender, ask, connection) =
            (client_id.clone(), link.sender.clone(), ask.clone(), link.connection);
        requests.spawn(counted(async move {
            one(&client_id, &mut sender, &ask, connection, earlier).await;
        }));
    }
    super::pause(pause).await;
    if link.settled.last_part.set(part).is_ok()
        && let Ok(last) = in_http2(&RequestSpec::get("/fast"))
    {
        // It is not recorded, since the server never gets all of it.
        let mut sender = link.sender.clone();
        let max_wait = client_id.max_wait();
        requests.spawn(counted(async move {
            tokio::select! {
                biased;
                _ = sender.send_request(last) => {}
                () = super::pause(max_wait) => {}
            }
        }));
    }
    while requests.join_next().await.is_some() {}
    link.stay(client_id).await;
    drop(link);
    tasks.end().await;
}

/// The most that a server may send of an unread response: the initial window of RFC 9113 §6.9.2.
pub(crate) const UNREAD_WINDOW: u32 = 65_535;

pub(super) type RequestBody = UnsyncBoxBody<Bytes, Infallible>;

pub(super) struct ClientConnection {
    pub(super) ended: CancellationToken,
    pub(super) settled: Settled,
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) connection: u64,
    requests: u64,
}

impl ClientConnection {
    /// Waits for the server's SETTINGS. Returns false if a GOAWAY came with them, or before.
    async fn may_ask(&self, max_wait: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.settled.settings.cancelled() => {}
            () = self.ended.cancelled() => return false,
            () = super::pause(max_wait) => return false,
        }
        !self.settled.goaway.is_cancelled()
    }

    /// Returns when the connection has ended.
    async fn closed(&self) {
        self.ended.cancelled().await;
    }

    /// Keeps the connection open, as a client that could send more requests does, until it ends or
    /// the longest wait of the client does.
    pub(super) async fn stay(&self, client_id: &ClientId) {
        tokio::select! {
            biased;
            () = self.closed() => {}
            () = super::pause(client_id.max_wait()) => {}
        }
    }

    pub(super) async fn open<C: Connect>(
        client_id: &ClientId,
        connect: &C,
        executor: &Tracked,
        window: Option<u32>,
    ) -> Result<Self, RequestFailure> {
        let pongs = if client_id.withholds_pongs() { Pongs::Never } else { Pongs::AtOnce };
        Self::open_with(client_id, connect, executor, window, (pongs, false)).await
    }

    /// Opens a connection whose client takes no notice of a graceful GOAWAY.
    pub(super) async fn open_deaf<C: Connect>(
        client_id: &ClientId,
        connect: &C,
        executor: &Tracked,
        pongs: Pongs,
    ) -> Result<Self, RequestFailure> {
        Self::open_with(client_id, connect, executor, None, (pongs, true)).await
    }

    async fn open_with<C: Connect>(
        client_id: &ClientId,
        connect: &C,
        executor: &Tracked,
        window: Option<u32>,
        (pongs, is_deaf): (Pongs, bool),
    ) -> Result<Self, RequestFailure> {
        let io = http1::connect(client_id, connect).await?;
        let connection = client_id.connected();
        let settled = Settled::default();
        let io =
            GoawayRecorder::new(io, C::is_broken, client_id.clone(), connection, settled.clone());
        let io = HiddenGoaway::new(io, is_deaf);
        let divides = client_id.divides_header_blocks();
        let io = TokioIo::new(OddFrames::new(io, divides, pongs, client_id.noise()));
        let mut builder = Builder::new(executor.clone());
        builder.timer(WorldTimer);
        if window.is_some() {
            builder.initial_stream_window_size(window);
        }
        let handshake = builder.handshake(io).await;
        let (sender, driver) = handshake.map_err(|_| {
            let failure = RequestFailure::new(How::Unreachable, 0);
            client_id.not_connected(&failure);
            failure
        })?;
        let (client_id, ended) = (client_id.clone(), CancellationToken::new());
        let end = ended.clone().drop_guard();
        executor.execute(async move {
            let _end = end;
            let how = if driver.await.is_ok() { "closed" } else { "broken" };
            client_id.tell("ended", &[("connection", connection.into()), ("how", how.into())]);
        });
        Ok(Self { ended, settled, sender, connection, requests: 0 })
    }
}

/// Sends one request. Returns its response, if it was complete.
pub(super) async fn one(
    client_id: &ClientId,
    sender: &mut SendRequest<RequestBody>,
    ask: &RequestSpec,
    connection: u64,
    earlier: u64,
) -> Option<ResponseSummary> {
    let request = client_id.asks(ask, connection, earlier);
    let end = tokio::select! {
        biased;
        end = answer(client_id, request, sender, ask) => end,
        () = super::pause(client_id.max_wait()) => Err(RequestFailure::new(How::TimedOut, 0)),
    };
    client_id.ended(request, &end);
    end.ok()
}

pub(super) async fn answer(
    client_id: &ClientId,
    request: u64,
    sender: &mut SendRequest<RequestBody>,
    ask: &RequestSpec,
) -> Result<ResponseSummary, RequestFailure> {
    let named = in_http2(&ask.named(&client_id.name_of(request)))?;
    answer_to(client_id, request, sender, named, Duration::ZERO).await
}

/// Sends a request and reads its response, with a pause after each frame of the body.
pub(super) async fn answer_to(
    client_id: &ClientId,
    request: u64,
    sender: &mut SendRequest<RequestBody>,
    named: http::Request<RequestBody>,
    pause: Duration,
) -> Result<ResponseSummary, RequestFailure> {
    let response = sender.send_request(named).await;
    if let Ok(response) = &response {
        client_id.head(request, &Head::of_http2(response));
    }
    body_of(client_id, request, response, pause).await
}

/// Reads the body of a response, with a pause after each frame, and records its end.
pub(super) async fn body_of(
    client_id: &ClientId,
    request: u64,
    response: hyper::Result<http::Response<Incoming>>,
    pause: Duration,
) -> Result<ResponseSummary, RequestFailure> {
    let response = response.map_err(|error| RequestFailure::new(how(&error, Stage::Head), 0))?;
    let status = response.status().as_u16();
    let mut call_status = grpc_status(response.headers()).map(|status| (status, "head"));
    let mut reply = Reply::begin(response.headers()).filter(|_| client_id.keeps() > 0);
    let mut body: Incoming = response.into_body();
    let (mut bytes, mut hash, mut kept) = (0, Fnv64::new(), Vec::new());
    let mut broken = None;
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                bytes += data.len() as u64;
                hash.feed(&data);
                let room = client_id.keeps().saturating_sub(kept.len());
                kept.extend_from_slice(&data[..data.len().min(room)]);
                reply.iter_mut().for_each(|reply| reply.read(&data));
                drop(data);
                super::pause(pause).await;
            }
            Ok(Err(frame)) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                let status = grpc_status(&trailers).map(|status| (status, "trailers"));
                call_status = status.or(call_status);
                reply.iter_mut().for_each(|reply| reply.end(trailers.clone()));
            }
            Err(error) => {
                broken = Some(RequestFailure::new(how(&error, Stage::Body), bytes.max(1)));
                break;
            }
        }
    }
    if let Some(reply) = &reply {
        reply.record(client_id, request);
    }
    if let Some(broken) = broken {
        return Err(broken);
    }
    if let Some((status, place)) = call_status {
        client_id.call_ended(request, status, place, bytes);
    }
    let said = reply.as_ref().and_then(Reply::message);
    client_id.received(request, said.unwrap_or(&kept));
    Ok(ResponseSummary {
        status,
        closes: false,
        keeps_alive: true,
        body_bytes: bytes,
        body_hash: hash.value(),
        grpc_status: call_status.map(|(status, _)| status),
        grpc_messages: reply.map_or(0, |reply| reply.messages()),
    })
}

/// Returns the status of a gRPC call, if these fields have one.
fn grpc_status(fields: &http::HeaderMap) -> Option<u64> {
    fields.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

pub(super) fn in_http2(ask: &RequestSpec) -> Result<http::Request<RequestBody>, RequestFailure> {
    in_http2_with(ask, Full::new(ask.body.clone()).boxed_unsync())
}

pub(super) fn in_http2_with(
    ask: &RequestSpec,
    body: RequestBody,
) -> Result<http::Request<RequestBody>, RequestFailure> {
    let mut request = http::Request::builder().method(ask.method.clone()).uri(format!(
        "http://{}{}",
        ask.host(),
        ask.target
    ));
    for (name, value) in ask.fields_without_host() {
        request = request.header(name, value);
    }
    request.body(body).map_err(|_| RequestFailure::new(How::NotSent, 0))
}

/// How far the response had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Body,
}

fn how(error: &hyper::Error, stage: Stage) -> How {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(link) = cause {
        if let Some(http2) = link.downcast_ref::<h2::Error>()
            && let Some(reason) = http2.reason()
        {
            return match (reason, http2.is_go_away()) {
                (h2::Reason::REFUSED_STREAM, _) => How::StreamRefused,
                (h2::Reason::NO_ERROR, true) => How::StreamRefused,
                (_, true) if stage == Stage::Head => How::EndBeforeHead,
                (_, true) => How::BodyCut,
                (_, false) => How::StreamReset,
            };
        }
        if let Some(error) = link.downcast_ref::<io::Error>() {
            return match (error.kind(), stage) {
                (io::ErrorKind::ConnectionReset, Stage::Head) => How::ResetBeforeHead,
                (io::ErrorKind::ConnectionReset, Stage::Body) => How::ResetInBody,
                (_, Stage::Head) => How::EndBeforeHead,
                (_, Stage::Body) => How::BodyCut,
            };
        }
        cause = link.source();
    }
    match stage {
        Stage::Head if error.is_canceled() => How::NotSent,
        Stage::Head => How::EndBeforeHead,
        Stage::Body => How::BodyCut,
    }
}
