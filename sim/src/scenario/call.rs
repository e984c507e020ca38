//! gRPC calls.

use crate::client::RequestSpec;
use serde::{Deserialize, Serialize};

/// An empty message: not compressed, no bytes.
pub(crate) const MESSAGE: [u8; 5] = [0; 5];

/// A gRPC call to the [default app](crate::app), which ends with the status 0 unless the host ends
/// it earlier. Only on HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// How long the handler needs. It ignores every cancellation.
    pub ms: u64,
    /// Number of messages that are sent meanwhile, the first at once; 0 for one message at the end.
    pub messages: u64,
    /// The `grpc-timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// When the host ends it early, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<CallEnd>,
    /// Whether the handler removes the deadline of its request. The one of its client remains.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_unlimited: bool,
}

/// When the host ends a call before its handler does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallEnd {
    /// When the drain begins.
    Draining,
    /// At its moment in the budget of long streams.
    Spread,
}

impl Call {
    pub(super) fn ask(self) -> RequestSpec {
        let Self { ms, messages, timeout_ms, ends, is_unlimited } = self;
        let mut target = format!("/call?ms={ms}&messages={messages}");
        target.push_str(match ends {
            Some(CallEnd::Draining) => "&end=drain",
            Some(CallEnd::Spread) => "&end=spread",
            None => "",
        });
        if is_unlimited {
            target.push_str("&unlimited=yes");
        }
        if let Some(timeout) = timeout_ms {
            target.push_str(&format!("&grpc={timeout}"));
        }
        let ask = RequestSpec::post(target, MESSAGE.to_vec())
            .with("content-type", "application/grpc+proto")
            .with("te", "trailers");
        match timeout_ms {
            Some(timeout) => ask.with("grpc-timeout", &format!("{timeout}m")),
            None => ask,
        }
    }

    /// Length of the whole response in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        let messages = if self.messages == 0 { 1 } else { self.messages };
        messages * MESSAGE.len() as u64
    }
}
