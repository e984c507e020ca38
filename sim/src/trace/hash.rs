//! FNV-1a, 64 bits: small, stable across versions and machines, and computed byte by byte. A trace
//! uses a faster variant of it, which takes eight bytes in each step.

/// The factor of each step.
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// An FNV-1a hash in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fnv64(u64);

impl Fnv64 {
    /// Creates the hash of an empty input.
    #[must_use]
    pub const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Returns the hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> u64 {
        let mut hash = Self::new();
        hash.feed(bytes);
        hash.value()
    }

    /// Adds `bytes`.
    pub fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }

    /// Adds `bytes` eight at a time, after their length. This is faster, but not FNV-1a: use it
    /// where no other implementation has to compute the same value.
    pub fn feed_bulk(&mut self, bytes: &[u8]) {
        self.feed_number(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.feed_number(u64::from_le_bytes(*word));
        }
        self.feed(rest);
    }

    /// Adds a number in one step, which is not FNV-1a either. All numbers have the same length, so
    /// no later input can be mistaken for a part of one.
    pub const fn feed_number(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(PRIME).rotate_left(29);
    }

    /// Adds a text as [`feed_bulk`](Self::feed_bulk) does.
    pub fn feed_text(&mut self, text: &str) {
        self.feed_bulk(text.as_bytes());
    }

    /// Returns the hash of everything that was added.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl Default for Fnv64 {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Fnv64;

    #[test]
    fn the_published_test_vectors_hold() {
        assert_eq!(Fnv64::of(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(Fnv64::of(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(Fnv64::of(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
