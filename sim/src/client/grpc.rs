//! gRPC over HTTP/2: the frames of messages, and how a call ended.

use super::ClientId;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

/// Length of what precedes each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Returns messages as a body, uncompressed.
pub(crate) fn frame(messages: &[Vec<u8>]) -> Bytes {
    let mut body = Vec::new();
    for message in messages {
        body.push(0);
        body.extend((message.len() as u32).to_be_bytes());
        body.extend(message);
    }
    body.into()
}

/// What a client has received of the response to a call.
#[derive(Debug, Default)]
pub(super) struct Reply {
    prefix: Vec<u8>,
    /// Bytes of a message that are to come.
    missing: usize,
    messages: u64,
    fields: HeaderMap,
}

impl Reply {
    /// Begins a reply, if a response is one. A response without a body has its status in its head.
    pub(super) fn begin(head: &HeaderMap) -> Option<Self> {
        let kind = head.get(header::CONTENT_TYPE)?;
        let is_grpc = kind.as_bytes().starts_with(b"application/grpc");
        is_grpc.then(|| Self { fields: head.clone(), ..Self::default() })
    }

    /// Counts the messages in the next bytes of the body.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.missing > 0 {
                let taken = self.missing.min(bytes.len());
                (self.missing, bytes) = (self.missing - taken, &bytes[taken..]);
                self.messages += u64::from(self.missing == 0);
                continue;
            }
            let (taken, rest) = bytes.split_at(bytes.len().min(PREFIX - self.prefix.len()));
            self.prefix.extend(taken);
            bytes = rest;
            if let [_, a, b, c, d] = self.prefix[..] {
                self.prefix.clear();
                self.missing = u32::from_be_bytes([a, b, c, d]) as usize;
                self.messages += u64::from(self.missing == 0);
            }
        }
    }

    pub(super) fn end(&mut self, trailers: HeaderMap) {
        self.fields.extend(trailers);
    }

    /// Returns the number of messages that have arrived.
    pub(super) const fn messages(&self) -> u64 {
        self.messages
    }

    /// Returns what the service said about the status.
    pub(super) fn message(&self) -> Option<&[u8]> {
        self.fields.get("grpc-message").map(HeaderValue::as_bytes)
    }

    /// Records the part of the reply that arrived.
    pub(super) fn record(&self, client_id: &ClientId, request: u64) {
        let mut fields = vec![("request", request.into()), ("count", self.messages.into())];
        if let Some(message) = self.message() {
            fields.push(("message", String::from_utf8_lossy(message).into_owned().into()));
        }
        client_id.tell("call messages", &fields);
    }
}

#[cfg(test)]
mod tests {
    use super::{Reply, frame};

    #[test]
    fn messages_are_counted_whatever_the_pieces_are() {
        let body = frame(&[b"tea".to_vec(), Vec::new(), b"milk".to_vec()]);
        assert_eq!(&body[..8], b"\0\0\0\0\x03tea");
        for size in 1..body.len() {
            let mut reply = Reply::default();
            body.chunks(size).for_each(|piece| reply.read(piece));
            assert_eq!((reply.messages, reply.missing), (3, 0), "pieces of {size}");
        }
    }
}
