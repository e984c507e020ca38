//! Connections that a worker closes at the connection limit, to make room for new ones.

use crate::http::{
    connection::idle_set::{Evicted, IdleSet},
    exchange::http_service::HttpService,
    server::{
        connection_slot::ConnectionSlot,
        idle_policy::{Idle, evictable},
        state::ServerState,
    },
};
use crate::{lifecycle::Moment, runtime::IdlePoller};
use std::{sync::Arc, time::Duration};

/// The shortest time between two searches.
const SEARCH_LEAST: Duration = Duration::from_millis(10);
/// The longest time between two searches.
const SEARCH_MOST: Duration = Duration::from_millis(250);

/// The connections that the last search found. The first to close is the last of the list.
#[derive(Default)]
pub(super) struct EvictionQueue {
    order: Vec<(Idle, Place)>,
    searched: Moment,
    next_search: Moment,
}

enum Place {
    Task(Arc<ConnectionSlot>),
    IdleSet(usize),
}

impl EvictionQueue {
    pub(super) const fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(super) const fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) const fn next_search(&self) -> Moment {
        self.next_search
    }

    /// Forgets what the last search found. The next one is not much earlier than otherwise.
    pub(super) fn forget(&mut self) {
        if !self.is_empty() {
            self.order.clear();
            self.next_search = self.searched + SEARCH_LEAST;
        }
    }

    /// Searches among the connections with a task and those of the idle set, if it is time.
    pub(super) fn search<L: IdlePoller, S: HttpService>(
        &mut self,
        server: &ServerState,
        slots: &[Arc<ConnectionSlot>],
        idle_set: &IdleSet<L, S>,
    ) {
        let now = server.clock.now();
        if now < self.next_search {
            return;
        }
        let tasks = slots.iter().filter(|slot| can_be_chosen(slot));
        let tasks = tasks.filter_map(|slot| Some((slot.evictable()?, Place::Task(slot.clone()))));
        let idle = idle_set.idle().map(|(idle, key)| (idle, Place::IdleSet(key)));
        let found = evictable(
            tasks.chain(idle),
            server.config.eviction_grace,
            now,
            server.caps().evictable_max,
        );
        // If busy connections make room, too, a connection that was not polled yet may soon do so.
        let most = if server.evicts_busy() { SEARCH_LEAST } else { SEARCH_MOST };
        let next_search = found.next_check.clamp(now + SEARCH_LEAST, now + most);
        *self = Self { order: found.order, searched: now, next_search };
    }

    /// Closes the first connection of the queue that still waits for what it waited for.
    pub(super) fn evict_one<L: IdlePoller, S: HttpService>(
        &mut self,
        idle_set: &mut IdleSet<L, S>,
    ) -> Evicted {
        let mut evicted = Evicted::No;
        while evicted == Evicted::No
            && let Some((idle, place)) = self.order.pop()
        {
            evicted = match place {
                Place::IdleSet(key) => idle_set.evict(key, idle),
                Place::Task(slot) if can_be_chosen(&slot) && slot.evictable() == Some(idle) => {
                    slot.evict();
                    Evicted::Yes
                }
                Place::Task(_) => Evicted::No,
            };
        }
        if self.is_empty() {
            self.next_search = self.searched + SEARCH_LEAST;
        }
        evicted
    }
}

/// Whether the connection is open and was not chosen before. Until it is polled, it looks idle.
fn can_be_chosen(slot: &ConnectionSlot) -> bool {
    !slot.is_closed() && !slot.is_chosen()
}

#[cfg(test)]
mod tests {
    use super::{Evicted, EvictionQueue, Place, SEARCH_LEAST, SEARCH_MOST};
    use crate::{
        http::{
            connection::polls::idle_sweeps::empty_idle_set,
            server::{
                announcement::Announcement,
                connection_slot::ConnectionSlot,
                idle_policy::{Awaited, Idle},
            },
        },
        lifecycle::Moment,
        runtime::Address,
    };
    use std::sync::Arc;

    /// The list is up to 250 ms old. A connection that has served a request after the search, and
    /// is idle again, was chosen. Its grace had begun again, so no connection made room.
    #[tokio::test]
    async fn a_connection_that_was_used_since_the_search_is_passed_over() {
        let idle = |since| Idle { awaited: Awaited::NextRequest, since: Moment::from_nanos(since) };
        let found = |since| {
            let local = Arc::new(Address::Unix(None));
            let (peer, announcement) = (Address::Unix(None), Announcement::OPENED_BEFORE);
            let slot = ConnectionSlot::new(Moment::EPOCH, peer, local, announcement);
            slot.set_idle(idle(since));
            Arc::new(slot)
        };
        let (used, unused) = (found(100), found(200));
        let order =
            vec![(idle(200), Place::Task(unused.clone())), (idle(100), Place::Task(used.clone()))];
        let mut queue = EvictionQueue { order, ..EvictionQueue::default() };
        used.set_idle(idle(900));
        queue.evict_one(&mut empty_idle_set());
        assert!(!used.is_evicted());
        assert!(unused.is_evicted());
        assert!(queue.is_empty());
    }

    // A connection that was chosen and had not been polled yet was found again, and chosen for a
    // second new one. Nothing made room for that, and after eight of those nothing was accepted.
    #[tokio::test]
    async fn a_connection_is_chosen_once() {
        let local = Arc::new(Address::Unix(None));
        let (peer, announcement) = (Address::Unix(None), Announcement::OPENED_BEFORE);
        let slot = Arc::new(ConnectionSlot::new(Moment::EPOCH, peer, local, announcement));
        let idle = Idle { awaited: Awaited::NextRequest, since: Moment::EPOCH };
        slot.set_idle(idle);
        let chosen = |slot: &Arc<ConnectionSlot>| {
            let order = vec![(idle, Place::Task(slot.clone()))];
            EvictionQueue { order, ..EvictionQueue::default() }.evict_one(&mut empty_idle_set())
        };
        assert_eq!((chosen(&slot), chosen(&slot)), (Evicted::Yes, Evicted::No));
    }

    // A search finds a part of the idle connections. The others would make room only after the time
    // between two searches in which nothing was found.
    #[tokio::test]
    async fn the_next_search_is_soon_once_all_that_were_found_have_made_room() {
        let (searched, late) = (Moment::from_nanos(100), Moment::from_nanos(100) + SEARCH_MOST);
        for is_known in [true, false] {
            let local = Arc::new(Address::Unix(None));
            let (peer, announcement) = (Address::Unix(None), Announcement::OPENED_BEFORE);
            let slot = Arc::new(ConnectionSlot::new(Moment::EPOCH, peer, local, announcement));
            let idle = Idle { awaited: Awaited::NextRequest, since: Moment::EPOCH };
            slot.set_idle(idle);
            let mut order = vec![(idle, Place::Task(slot))];
            order.extend((!is_known).then_some((idle, Place::IdleSet(7))));
            let mut queue = EvictionQueue { order, searched, next_search: late };
            queue.evict_one(&mut empty_idle_set());
            assert!(queue.is_empty());
            assert_eq!(queue.next_search(), searched + SEARCH_LEAST);
        }
    }
}
