//! The content of large bodies. It depends on the position, so that parts that are lost, repeated
//! or out of order show.

use crate::trace::Fnv64;
use bytes::Bytes;
use std::sync::LazyLock;

/// As many bytes as the largest body has. Longer ones repeat it.
static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    let byte = |at: u32| at.wrapping_mul(2_654_435_761).to_be_bytes()[0];
    (0..1 << 20).map(byte).collect::<Vec<_>>().into()
});

/// The hash of each beginning of the pattern.
static HASHES: LazyLock<Vec<u64>> = LazyLock::new(|| {
    let mut hash = Fnv64::new();
    let first = [hash.value()].into_iter();
    let after_each = PATTERN.iter().map(|byte| {
        hash.feed(&[*byte]);
        hash.value()
    });
    first.chain(after_each).collect()
});

/// Returns a body of this many bytes.
pub(crate) fn body(bytes: usize) -> Bytes {
    if bytes <= PATTERN.len() {
        return PATTERN.slice(..bytes);
    }
    PATTERN.iter().copied().cycle().take(bytes).collect::<Vec<_>>().into()
}

/// Returns the hash of a body of this many bytes.
pub(crate) fn hash(bytes: usize) -> u64 {
    HASHES.get(bytes).copied().unwrap_or_else(|| Fnv64::of(&body(bytes)))
}
