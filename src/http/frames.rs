//! How many bytes of bodies left on an HTTP/2 connection, read off the frames that pass.
//!
//! hyper hands DATA to its own buffers and calls it written; whether flow control let it out is not to be seen from outside,
//! except here: every frame begins with nine bytes that say its length and type (RFC 9113 §4.1).

const HEADER: usize = 9;
const TYPE_DATA: u8 = 0;

/// Counts the payload bytes of DATA frames in a stream of frames, cut anywhere.
#[derive(Debug, Default)]
pub(crate) struct DataMeter {
    header: [u8; HEADER],
    /// Bytes of the header that have been seen.
    seen: usize,
    /// Bytes of the payload that are still to come.
    payload_left: usize,
    is_data: bool,
}

impl DataMeter {
    /// Takes the next bytes of the stream; returns how many of them are DATA payload.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> u64 {
        let mut data = 0;
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let part = self.payload_left.min(bytes.len());
                if self.is_data {
                    data += part as u64;
                }
                self.payload_left -= part;
                bytes = &bytes[part..];
                continue;
            }
            let part = (HEADER - self.seen).min(bytes.len());
            self.header[self.seen..self.seen + part].copy_from_slice(&bytes[..part]);
            self.seen += part;
            bytes = &bytes[part..];
            if self.seen == HEADER {
                let [a, b, c, kind, ..] = self.header;
                self.payload_left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.is_data = kind == TYPE_DATA;
                self.seen = 0;
            }
        }
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(payload).unwrap().to_be_bytes();
        let mut bytes = vec![a, b, c, kind, 0, 0, 0, 0, 1];
        bytes.resize(HEADER + payload, 7);
        bytes
    }

    #[test]
    fn only_the_payload_of_data_frames_counts_wherever_the_stream_is_cut() {
        let stream = [frame(4, 0), frame(1, 33), frame(0, 16_384), frame(0, 0), frame(7, 8), frame(0, 5)].concat();
        for step in [1, 2, 7, 9, 10, 1_000, stream.len()] {
            let mut meter = DataMeter::default();
            let data: u64 = stream.chunks(step).map(|chunk| meter.feed(chunk)).sum();
            assert_eq!(data, 16_389, "in pieces of {step}");
        }
    }
}
