//! A FIFO of waiters, ordered by deadline. It is a linked list in a slab, so `push` and `remove`
//! need no search, and an allocation only when the slab grows.

use crate::lifecycle::Moment;
use slab::Slab;
use std::task::Waker;

/// Waiters in the order in which they came, which is the order of their deadlines.
#[derive(Debug, Default)]
pub(super) struct DeadlineQueue {
    nodes: Slab<Node>,
    first: Option<u32>,
    last: Option<u32>,
}

#[derive(Debug)]
struct Node {
    deadline: Moment,
    /// Unique id of the waiter. Nodes are reused, ids are not.
    id: u64,
    waker: Waker,
    previous: Option<u32>,
    next: Option<u32>,
}

impl DeadlineQueue {
    /// Returns the deadline of the last waiter, or the epoch if the queue is empty.
    pub(super) fn last_deadline(&self) -> Moment {
        self.last.and_then(|last| self.node(last)).map_or(Moment::EPOCH, |node| node.deadline)
    }

    /// Returns the deadline of the first waiter, or `NEVER` if the queue is empty.
    pub(super) fn first_deadline(&self) -> Moment {
        self.first.and_then(|first| self.node(first)).map_or(Moment::NEVER, |node| node.deadline)
    }

    /// Adds a waiter at the end. Its deadline must not be before that of any other.
    pub(super) fn push(&mut self, deadline: Moment, id: u64, waker: Waker) -> u32 {
        debug_assert!(
            deadline >= self.last_deadline(),
            "the line is in the order of its deadlines (P9)"
        );
        let node = self.nodes.insert(Node { deadline, id, waker, previous: self.last, next: None });
        let node = u32::try_from(node)
            .unwrap_or_else(|_| unreachable!("there are fewer descriptors than that"));
        match self.last.replace(node) {
            Some(last) => self.connect(Some(last), Some(node)),
            None => self.first = Some(node),
        }
        node
    }

    /// Removes a waiter, if the node still belongs to `id`.
    pub(super) fn remove(&mut self, node: u32, id: u64) -> Option<Waker> {
        if self.node(node)?.id != id {
            return None;
        }
        let Node { waker, previous, next, .. } = self.nodes.remove(node as usize);
        if previous.is_none() {
            self.first = next;
        }
        if next.is_none() {
            self.last = previous;
        }
        self.connect(previous, next);
        Some(waker)
    }

    /// Removes all waiters whose deadlines are at or before `now`, and returns their wakers.
    pub(super) fn take_due(&mut self, now: Moment) -> Vec<Waker> {
        let mut due = Vec::new();
        while let Some(first) = self.first
            && let Some(node) = self.node(first)
            && node.deadline <= now
        {
            let id = node.id;
            due.extend(self.remove(first, id));
        }
        due
    }

    /// Returns the wakers of all waiters, in no order.
    pub(super) fn wakers(&self) -> impl Iterator<Item = &Waker> {
        self.nodes.iter().map(|(_, node)| &node.waker)
    }

    fn node(&self, node: u32) -> Option<&Node> {
        self.nodes.get(node as usize)
    }

    fn connect(&mut self, previous: Option<u32>, next: Option<u32>) {
        if let Some(node) = previous.and_then(|previous| self.nodes.get_mut(previous as usize)) {
            node.next = next;
        }
        if let Some(node) = next.and_then(|next| self.nodes.get_mut(next as usize)) {
            node.previous = previous;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// A waiter is added, with a deadline that is later than the last by this many nanoseconds.
        Push(u64),
        /// The n-th waiter leaves, if it is still queued.
        Remove(usize),
        /// The time advances to this many nanoseconds after the first deadline.
        Due(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3_u64).prop_map(Step::Push),
            (0..40_usize).prop_map(Step::Remove),
            (0..4_u64).prop_map(Step::Due)
        ]
    }

    proptest! {
        #[test]
        fn the_queue_behaves_like_a_sorted_list(steps in proptest::collection::vec(step(), 0..80)) {
            let mut queue = DeadlineQueue::default();
            let (mut list, mut pushed) = (Vec::new(), Vec::new());
            let mut latest = 0;
            for step in steps {
                match step {
                    Step::Push(later) => {
                        latest += later;
                        let id = pushed.len() as u64;
                        let waker = Waker::noop().clone();
                        pushed.push(queue.push(Moment::from_nanos(latest), id, waker));
                        list.push((latest, id));
                    }
                    Step::Remove(nth) => {
                        let id = nth as u64;
                        let node = pushed.get(nth).copied().unwrap_or(7);
                        let was_there = list.iter().any(|(_, one)| *one == id);
                        list.retain(|(_, one)| *one != id);
                        prop_assert_eq!(queue.remove(node, id).is_some(), was_there);
                    }
                    Step::Due(next) => {
                        let now = list.first().map_or(0, |(deadline, _)| deadline + next);
                        let due = list.iter().filter(|(deadline, _)| *deadline <= now).count();
                        list.drain(..due);
                        prop_assert_eq!(queue.take_due(Moment::from_nanos(now)).len(), due);
                    }
                }
                let ends = [list.first(), list.last()]
                    .map(|end| end.map(|(deadline, _)| Moment::from_nanos(*deadline)));
                prop_assert_eq!(queue.first_deadline(), ends[0].unwrap_or(Moment::NEVER));
                prop_assert_eq!(queue.last_deadline(), ends[1].unwrap_or(Moment::EPOCH));
                prop_assert_eq!(queue.nodes.len(), list.len());
            }
        }
    }
}
