//! Which of too many connections makes room for a new one.
//!
//! New connections are always taken, so that a client that asks at once is answered at once, however many others hold
//! connections on which they say nothing. Waiting in the backlog for one of them to time out would fail every probe
//! meanwhile.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// What a connection does, told by itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Doing {
    /// A request of it is being answered.
    is_busy: Arc<AtomicBool>,
    /// Counts up with everything that any connection does: larger is later.
    last: Arc<AtomicU64>,
    clock: Arc<AtomicU64>,
}

impl Doing {
    fn new(clock: &Arc<AtomicU64>) -> Self {
        let doing = Self { clock: Arc::clone(clock), ..Self::default() };
        doing.set_busy(false);
        doing
    }

    /// The head of a request is complete, or its answer is made.
    pub(super) fn set_busy(&self, is_busy: bool) {
        self.is_busy.store(is_busy, Ordering::Relaxed);
        self.last.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Connections by key, at most so many.
#[derive(Debug)]
pub(super) struct Crowd<K> {
    most: usize,
    clock: Arc<AtomicU64>,
    members: HashMap<K, (IpAddr, Doing)>,
}

impl<K: Copy + Eq + Hash> Crowd<K> {
    pub(super) fn new(most: usize) -> Self {
        Self { most, clock: Arc::default(), members: HashMap::with_capacity(most) }
    }

    /// What a new connection is to tell of itself.
    pub(super) fn newcomer(&self) -> Doing {
        Doing::new(&self.clock)
    }

    /// Takes a connection. If there are too many then, says which one has to go.
    pub(super) fn enter(&mut self, key: K, peer: IpAddr, doing: Doing) -> Option<K> {
        let leaves = if self.members.len() < self.most { None } else { self.least() };
        if let Some(leaves) = leaves {
            self.members.remove(&leaves);
        }
        self.members.insert(key, (peer, doing));
        leaves
    }

    pub(super) fn leave(&mut self, key: K) {
        self.members.remove(&key);
    }

    /// One that waits for its client before one that is being answered; of these one of the peer that has most; of these
    /// the one that has done nothing for longest.
    fn least(&self) -> Option<K> {
        let mut of_peer: HashMap<IpAddr, usize> = HashMap::new();
        for (peer, _) in self.members.values() {
            *of_peer.entry(*peer).or_default() += 1;
        }
        let rank = |peer: &IpAddr, doing: &Doing| {
            let others = self.members.len() - of_peer.get(peer).copied().unwrap_or_default();
            (doing.is_busy.load(Ordering::Relaxed), others, doing.last.load(Ordering::Relaxed))
        };
        let least = self.members.iter().min_by_key(|(_, (peer, doing))| rank(peer, doing));
        least.map(|(key, _)| *key)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    /// Three connections: two of one peer, one of another.
    fn crowd() -> (Crowd<u32>, [Doing; 3]) {
        let mut crowd = Crowd::new(3);
        let doing = [(1, 1), (2, 2), (3, 2)].map(|(key, of)| {
            let doing = crowd.newcomer();
            assert_eq!(crowd.enter(key, peer(of), doing.clone()), None);
            doing
        });
        (crowd, doing)
    }

    #[test]
    fn there_is_room_until_there_is_none() {
        let (mut crowd, _) = crowd();
        crowd.leave(2);
        let newcomer = crowd.newcomer();
        assert_eq!(crowd.enter(4, peer(1), newcomer), None);
        assert!(crowd.enter(5, peer(1), crowd.newcomer()).is_some());
        assert_eq!(crowd.members.len(), 3);
    }

    #[test]
    fn the_longest_idle_one_of_the_peer_with_most_goes() {
        let (mut crowd, doing) = crowd();
        assert_eq!(crowd.enter(4, peer(3), crowd.newcomer()), Some(2));
        let (mut other, of_other) = self::crowd();
        of_other[1].set_busy(true);
        of_other[1].set_busy(false);
        assert_eq!(other.enter(4, peer(3), other.newcomer()), Some(3), "it asked something meanwhile");
        drop(doing);
    }

    #[test]
    fn who_is_being_answered_goes_last() {
        let (mut crowd, doing) = crowd();
        doing[1].set_busy(true);
        doing[2].set_busy(true);
        assert_eq!(crowd.enter(4, peer(3), crowd.newcomer()), Some(1));
        let (mut all_busy, doing) = self::crowd();
        for one in &doing {
            one.set_busy(true);
        }
        assert_eq!(all_busy.enter(4, peer(3), all_busy.newcomer()), Some(2), "but it goes");
    }
}
