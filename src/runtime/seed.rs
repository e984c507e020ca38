//! Injected randomness.

/// The seed of all random choices. The same seed makes the same choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seed(pub u64);

impl Seed {
    /// Returns the `n`-th number of this seed, evenly distributed over all of `u64` (splitmix64,
    /// Steele, Lea and Flood 2014).
    #[must_use]
    pub const fn nth(self, n: u64) -> u64 {
        let mut z = self.0.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
