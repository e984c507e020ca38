//! Server-sent events: how many of them a stream has.

/// Counts the events of a stream as it arrives. A comment, such as a keep-alive, is no event.
#[derive(Clone, Debug, Default)]
pub(super) struct EventCount {
    events: u64,
    /// The beginning of the current line.
    line: Vec<u8>,
    /// Whether the current event has data. Without any it is dropped.
    has_data: bool,
    after_cr: bool,
}

/// The field that an event has, with what ends its name.
const DATA: &[u8] = b"data:";

impl EventCount {
    /// Counts the events that these bytes complete.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' if self.after_cr => {}
                b'\n' | b'\r' => self.end_line(),
                other if self.line.len() < DATA.len() => self.line.push(*other),
                _ => {}
            }
            self.after_cr = *byte == b'\r';
        }
    }

    fn end_line(&mut self) {
        if self.line.is_empty() {
            self.events += u64::from(std::mem::take(&mut self.has_data));
        }
        self.has_data |= self.line == DATA || self.line == b"data";
        self.line.clear();
    }

    /// Returns the number of complete events.
    pub(super) const fn get(&self) -> u64 {
        self.events
    }
}

#[cfg(test)]
mod tests {
    use super::EventCount;

    #[test]
    fn events_are_counted_whatever_the_pieces_and_the_line_ends_are() {
        let stream = "\u{feff}: hello\n\n:\n\ndata: 1\n\nid: 7\ndata\ndata: 2\n\nretry: 9\n\n\
                      data: 3\r\n\r\ndata:4\r\rdatabase: 5\n\ndata: cut\n";
        for size in 1..stream.len() {
            let mut count = EventCount::default();
            stream.as_bytes().chunks(size).for_each(|piece| count.read(piece));
            assert_eq!(count.get(), 4, "pieces of {size}");
        }
    }
}
