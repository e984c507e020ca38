//! One request and its response.

pub(super) mod authority;
pub(super) mod body_wait;
pub(super) mod connection_state;
pub(super) mod context;
pub(super) mod error_response;
pub(super) mod final_reads;
pub(super) mod framing;
mod grpc;
pub(super) mod handler;
pub(super) mod http2_input;
pub(super) mod http_service;
pub(super) mod in_flight;
mod io_state;
pub(super) mod request_bodies;
pub(super) mod request_body;
pub(super) mod request_end;
pub(super) mod request_state;
mod request_states;
pub(super) mod response_body;
mod response_body_end;
mod response_body_error;
mod response_body_failure;
mod response_body_state;
mod response_head;
mod response_head_check;
mod response_progress;
mod responses_state;
pub(super) mod service;
pub(super) mod sniff;
pub(super) mod stream_shutdown;
pub(super) mod tracked_chunk;
pub(super) mod tracked_io;
mod upgrade_state;

pub use context::RequestContext;
pub use http_service::HttpService;
pub use request_body::Body;
pub use request_end::CancelCause;
pub use stream_shutdown::StreamShutdown;

pub(crate) use http_service::BoxError;
