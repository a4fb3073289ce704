//! The best candidates of the last draws. A draw sees few keys, and those of one shard alone; what it saw that is
//! little used stays a candidate beside what the next draws see, so that the choice is among far more keys.
//! Source: "Key eviction" of the documentation, on the approximated LRU since Redis 3.0.

use crate::config::choice::MaxmemoryPolicy;
use crate::keyspace::DbIndex;

/// Candidates that are kept, as in Redis.
const CANDIDATES: usize = 16;

/// A key that may be evicted.
#[derive(Debug)]
pub(super) struct Candidate {
    /// The higher, the sooner it goes.
    pub rank: u64,
    pub db: DbIndex,
    pub key: Vec<u8>,
}

/// The best candidates, the next to go last. They are what once was seen: who takes one looks whether it still is so.
#[derive(Debug, Default)]
pub struct Pool {
    policy: Option<MaxmemoryPolicy>,
    candidates: Vec<Candidate>,
}

impl Pool {
    /// Forgets what another policy has ranked.
    pub(super) fn rank_by(&mut self, policy: MaxmemoryPolicy) {
        if self.policy.replace(policy) != Some(policy) {
            self.candidates.clear();
        }
    }

    /// Takes a key in if it is better than the worst, or there is room. Of equals the one that came first goes first.
    pub(super) fn offer(&mut self, rank: u64, db: DbIndex, key: &[u8]) {
        let full = self.candidates.len() == CANDIDATES;
        if full && rank <= self.candidates[0].rank {
            return;
        }
        if let Some(at) = self.candidates.iter().position(|c| c.db == db && c.key == key) {
            self.candidates.remove(at);
        } else if full {
            self.candidates.remove(0);
        }
        let at = self.candidates.partition_point(|c| c.rank < rank);
        self.candidates.insert(at, Candidate { rank, db, key: key.to_vec() });
    }

    /// Takes the best one out.
    pub(super) fn take(&mut self) -> Option<Candidate> {
        self.candidates.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_sixteen_stay_and_the_best_goes_first() {
        let mut pool = Pool::default();
        pool.rank_by(MaxmemoryPolicy::AllkeysLru);
        for n in 0..100u64 {
            pool.offer(n * 37 % 100, 0, format!("key:{}", n * 37 % 100).as_bytes());
        }
        let ranks: Vec<u64> = std::iter::from_fn(|| pool.take()).map(|c| c.rank).collect();
        assert_eq!(ranks, (84..100).rev().collect::<Vec<_>>());
    }

    #[test]
    fn a_key_is_in_it_once_and_of_equals_the_first_goes_first() {
        let mut pool = Pool::default();
        pool.rank_by(MaxmemoryPolicy::AllkeysLfu);
        for (rank, key) in [(5, "a"), (7, "b"), (7, "c"), (9, "b"), (2, "a")] {
            pool.offer(rank, 0, key.as_bytes());
        }
        pool.offer(7, 1, b"b");
        let taken: Vec<(u64, DbIndex, Vec<u8>)> =
            std::iter::from_fn(|| pool.take()).map(|c| (c.rank, c.db, c.key)).collect();
        let key = |name: &str| name.as_bytes().to_vec();
        assert_eq!(taken, [(9, 0, key("b")), (7, 0, key("c")), (7, 1, key("b")), (2, 0, key("a"))]);
    }

    #[test]
    fn another_policy_begins_anew() {
        let mut pool = Pool::default();
        pool.rank_by(MaxmemoryPolicy::AllkeysLru);
        pool.offer(1, 0, b"a");
        pool.rank_by(MaxmemoryPolicy::AllkeysLru);
        assert!(pool.take().is_some());
        pool.offer(1, 0, b"a");
        pool.rank_by(MaxmemoryPolicy::AllkeysLfu);
        assert!(pool.take().is_none());
    }
}
