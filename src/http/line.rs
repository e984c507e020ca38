//! A line of waiters, first come first due: links in one block of memory, so that to join and to leave it costs no allocation and no
//! search, wherever in the line one stands.

use crate::lifecycle::Moment;
use slab::Slab;
use std::task::Waker;

/// Waiters in the order in which they came, which is that of their deadlines.
#[derive(Debug, Default)]
pub(crate) struct Line {
    seats: Slab<Seat>,
    first: Option<u32>,
    last: Option<u32>,
}

#[derive(Debug)]
struct Seat {
    deadline: Moment,
    /// Whose seat it is: a seat is taken again, a number never.
    number: u64,
    waker: Waker,
    before: Option<u32>,
    after: Option<u32>,
}

impl Line {
    /// The last one's; the epoch if nobody waits.
    pub(crate) fn last_deadline(&self) -> Moment {
        self.last.and_then(|last| self.seat(last)).map_or(Moment::EPOCH, |seat| seat.deadline)
    }

    /// The first one's; `NEVER` if nobody waits.
    pub(crate) fn first_deadline(&self) -> Moment {
        self.first.and_then(|first| self.seat(first)).map_or(Moment::NEVER, |seat| seat.deadline)
    }

    /// Joins behind all others, who are due no later.
    pub(crate) fn join(&mut self, deadline: Moment, number: u64, waker: Waker) -> u32 {
        debug_assert!(deadline >= self.last_deadline(), "the line is in the order of its deadlines (P9)");
        let seat = self.seats.insert(Seat { deadline, number, waker, before: self.last, after: None });
        let seat = u32::try_from(seat).unwrap_or_else(|_| unreachable!("there are fewer descriptors than that"));
        match self.last.replace(seat) {
            Some(last) => self.link(Some(last), Some(seat)),
            None => self.first = Some(seat),
        }
        seat
    }

    /// Leaves, if the seat is still that one's.
    pub(crate) fn leave(&mut self, seat: u32, number: u64) -> Option<Waker> {
        if self.seat(seat)?.number != number {
            return None;
        }
        let Seat { waker, before, after, .. } = self.seats.remove(seat as usize);
        if before.is_none() {
            self.first = after;
        }
        if after.is_none() {
            self.last = before;
        }
        self.link(before, after);
        Some(waker)
    }

    /// Takes out all who are due by `now`.
    pub(crate) fn take_due(&mut self, now: Moment) -> Vec<Waker> {
        let mut due = Vec::new();
        while let Some(first) = self.first
            && let Some(seat) = self.seat(first)
            && seat.deadline <= now
        {
            let number = seat.number;
            due.extend(self.leave(first, number));
        }
        due
    }

    fn seat(&self, seat: u32) -> Option<&Seat> {
        self.seats.get(seat as usize)
    }

    fn link(&mut self, before: Option<u32>, after: Option<u32>) {
        if let Some(seat) = before.and_then(|before| self.seats.get_mut(before as usize)) {
            seat.after = after;
        }
        if let Some(seat) = after.and_then(|after| self.seats.get_mut(after as usize)) {
            seat.before = before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Somebody comes, so much later than the last.
        Join(u64),
        /// The one who came as the so-manieth leaves, if it is still there.
        Leave(usize),
        /// The time comes at which so much has passed since the first deadline.
        Due(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![(0..3_u64).prop_map(Step::Join), (0..40_usize).prop_map(Step::Leave), (0..4_u64).prop_map(Step::Due)]
    }

    proptest! {
        #[test]
        fn a_line_is_what_a_list_would_be(steps in proptest::collection::vec(step(), 0..80)) {
            let (mut line, mut list, mut came) = (Line::default(), Vec::new(), Vec::new());
            let mut latest = 0;
            for step in steps {
                match step {
                    Step::Join(later) => {
                        latest += later;
                        let number = came.len() as u64;
                        came.push(line.join(Moment::from_nanos(latest), number, Waker::noop().clone()));
                        list.push((latest, number));
                    }
                    Step::Leave(nth) => {
                        let number = nth as u64;
                        let seat = came.get(nth).copied().unwrap_or(7);
                        let was_there = list.iter().any(|(_, one)| *one == number);
                        list.retain(|(_, one)| *one != number);
                        prop_assert_eq!(line.leave(seat, number).is_some(), was_there);
                    }
                    Step::Due(after) => {
                        let now = list.first().map_or(0, |(deadline, _)| deadline + after);
                        let due = list.iter().filter(|(deadline, _)| *deadline <= now).count();
                        list.drain(..due);
                        prop_assert_eq!(line.take_due(Moment::from_nanos(now)).len(), due);
                    }
                }
                let ends = [list.first(), list.last()].map(|end| end.map(|(deadline, _)| Moment::from_nanos(*deadline)));
                prop_assert_eq!(line.first_deadline(), ends[0].unwrap_or(Moment::NEVER));
                prop_assert_eq!(line.last_deadline(), ends[1].unwrap_or(Moment::EPOCH));
                prop_assert_eq!(line.seats.len(), list.len());
            }
        }
    }
}
