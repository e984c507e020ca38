//! Random numbers for drawing scenarios, one after the other, from a seed.

use lameduck::runtime::Seed;

/// A sequence of random numbers that follows from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    seed: Seed,
    thrown: u64,
}

impl Dice {
    /// Creates dice for the scenario itself. They are independent of the world's own randomness,
    /// which has the same seed.
    pub(crate) const fn new(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x5ce_a210)), thrown: 0 }
    }

    /// Creates independent dice for the extra load.
    pub(crate) const fn of_extras(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0xc03_9a47)), thrown: 0 }
    }

    /// Creates independent dice for the clients of the lame duck delay.
    pub(crate) const fn of_latecomers(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x1a7_ec0e)), thrown: 0 }
    }

    /// Creates independent dice for the caps.
    pub(crate) const fn of_caps(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x0ca_9511)), thrown: 0 }
    }

    /// Creates independent dice for rare requests.
    pub(crate) const fn of_rare(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x4a_4e00)), thrown: 0 }
    }

    /// Creates independent dice for long streams.
    pub(super) const fn of_streams(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x57_4ea)), thrown: 0 }
    }

    /// Creates independent dice for gRPC calls.
    pub(super) const fn of_calls(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x9_4bc)), thrown: 0 }
    }

    /// Creates independent dice for the limits.
    pub(crate) const fn of_limits(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x11_3175)), thrown: 0 }
    }

    /// Creates independent dice for what is bounded or refused while serving.
    pub(crate) const fn of_serving(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x5e_4517)), thrown: 0 }
    }

    /// Creates independent dice for PROXY headers.
    pub(super) const fn of_headers(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x4e_ad)), thrown: 0 }
    }

    /// Creates independent dice for the heads of requests.
    pub(super) const fn of_heads(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x4e_ad5)), thrown: 0 }
    }

    /// Creates independent dice for things that matter only together.
    pub(super) const fn of_things_together(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x70_9e74)), thrown: 0 }
    }

    /// Creates independent dice for clients that go on sending at the end of a connection.
    pub(super) const fn of_closing(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0xc1_05e)), thrown: 0 }
    }

    /// Creates independent dice for what concerns the process and not its requests.
    pub(super) const fn of_control(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0xc0_4701)), thrown: 0 }
    }

    /// Creates independent dice for TLS.
    pub(crate) const fn of_tls(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x7_15)), thrown: 0 }
    }

    /// Creates independent dice for TLS handshakes.
    pub(super) const fn of_handshakes(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x4a_4d5)), thrown: 0 }
    }

    /// Creates independent dice for contexts that are watched late.
    pub(super) const fn of_contexts(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0xc0_47e7)), thrown: 0 }
    }

    /// Creates independent dice for clients that are slow with one part of a connection.
    pub(super) const fn of_slow_parts(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x510_9a7)), thrown: 0 }
    }

    /// Creates independent dice for handlers that take their time.
    pub(super) const fn of_waiting(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x3a_171)), thrown: 0 }
    }

    /// Creates independent dice for start hooks that block.
    pub(super) const fn of_starts(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x57_a7_75)), thrown: 0 }
    }

    /// Creates independent dice for requests of several kinds on one connection.
    pub(super) const fn of_sequences(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x5e_90e2)), thrown: 0 }
    }

    /// Creates independent dice for requests with the method `HEAD`.
    pub(super) const fn of_head_requests(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x04ea_d4e9)), thrown: 0 }
    }

    /// Creates independent dice for responses that announce their close.
    pub(super) const fn of_handler_closes(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x00c1_05e5)), thrown: 0 }
    }

    /// Creates independent dice for what clients send beside their requests.
    pub(super) const fn of_noise(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0x0_0153)), thrown: 0 }
    }

    /// Creates independent dice for the faults of downstreams.
    pub(crate) const fn of_downstreams(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0xd0_57_ea)), thrown: 0 }
    }

    /// Creates independent dice for deploys.
    pub(crate) const fn of_deploys(seed: u64) -> Self {
        Self { seed: Seed(Seed(seed).nth(0xde_91_07)), thrown: 0 }
    }

    const fn throw(&mut self) -> u64 {
        self.thrown += 1;
        self.seed.nth(self.thrown)
    }

    /// Returns a number below `end`, or 0 if `end` is 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.throw() % end.max(1)
    }

    /// Returns a number from `from` to `to`, both inclusive.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// Returns true with a probability of 1 in `n`.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Returns one element of `from`.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let place = usize::try_from(self.below(from.len() as u64)).unwrap_or(0);
        from[place]
    }

    /// Returns a time within 2 ms of `at`.
    pub(crate) fn about(&mut self, at: u64) -> u64 {
        (at + self.below(5)).saturating_sub(2)
    }
}

#[cfg(test)]
mod tests {
    use super::Dice;

    #[test]
    fn throws_follow_from_the_seed_and_stay_in_their_bounds() {
        let throws = |seed| {
            (0..100).map(|_| ()).fold((Dice::new(seed), Vec::new()), |(mut dice, mut all), ()| {
                all.push(dice.between(3, 7));
                (dice, all)
            })
        };
        assert_eq!(throws(1).1, throws(1).1);
        assert_ne!(throws(1).1, throws(2).1);
        assert!((3..=7).all(|n| throws(1).1.contains(&n)));
        assert!((0..100).all(|_| (98..=102).contains(&Dice::new(4).about(100))));
        assert_eq!(Dice::new(1).below(0), 0);
    }
}
