//! Sessions that clients may resume instead of a whole handshake: so many, for so long
//! (`tls-session-cache-size`, `tls-session-cache-timeout`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::Mutex;
use rustls::server::StoresServerSessions;

/// What `tls-session-cache-size 0`, no limit, stands for: memory is bounded all the same.
const MOST: usize = 1 << 20;

#[derive(Debug)]
pub struct Resumable {
    most: usize,
    /// Zero: for ever.
    lifetime: Duration,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    sessions: HashMap<Vec<u8>, (Instant, Vec<u8>)>,
    /// Oldest first. What was taken stands here still, until its turn comes.
    order: VecDeque<(Instant, Vec<u8>)>,
}

impl Resumable {
    pub fn new(size: u32, timeout_s: u32) -> Self {
        let most = if size == 0 { MOST } else { (size as usize).min(MOST) };
        Self { most, lifetime: Duration::from_secs(u64::from(timeout_s)), kept: Mutex::default() }
    }

    fn is_old(&self, since: Instant, now: Instant) -> bool {
        !self.lifetime.is_zero() && now.duration_since(since) >= self.lifetime
    }

    fn get_at(&self, key: &[u8], now: Instant) -> Option<Vec<u8>> {
        let kept = self.kept.lock();
        let (since, session) = kept.sessions.get(key)?;
        (!self.is_old(*since, now)).then(|| session.clone())
    }

    fn take_at(&self, key: &[u8], now: Instant) -> Option<Vec<u8>> {
        let (since, session) = self.kept.lock().sessions.remove(key)?;
        (!self.is_old(since, now)).then_some(session)
    }

    fn put_at(&self, key: Vec<u8>, session: Vec<u8>, now: Instant) {
        let kept = &mut *self.kept.lock();
        kept.order.push_back((now, key.clone()));
        kept.sessions.insert(key, (now, session));
        while let Some((since, key)) = kept.order.front() {
            if kept.order.len() <= self.most && !self.is_old(*since, now) {
                break;
            }
            // A key that was put again has a later place, too.
            if kept.sessions.get(key).is_some_and(|(at, _)| at == since) {
                kept.sessions.remove(key);
            }
            kept.order.pop_front();
        }
    }
}

impl StoresServerSessions for Resumable {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.put_at(key, value, Instant::now());
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.get_at(key, Instant::now())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.take_at(key, Instant::now())
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_kept_and_for_so_long() {
        let now = Instant::now();
        let after = |s| now + Duration::from_secs(s);
        let kept = Resumable::new(2, 300);
        for (i, key) in [b"a", b"b", b"c"].iter().enumerate() {
            kept.put_at(key.to_vec(), vec![i as u8], after(i as u64));
        }
        assert_eq!(kept.get_at(b"a", after(3)), None, "there was room for two");
        assert_eq!(kept.get_at(b"b", after(3)), Some(vec![1]));
        assert_eq!(kept.get_at(b"b", after(301)), None, "its time is over");
        assert_eq!(kept.take_at(b"c", after(301)), Some(vec![2]));
        assert_eq!(kept.take_at(b"c", after(301)), None, "taken once");
        // Put again, it is as young as the second time.
        kept.put_at(b"b".to_vec(), vec![9], after(302));
        kept.put_at(b"d".to_vec(), vec![3], after(303));
        assert_eq!(kept.get_at(b"b", after(304)), Some(vec![9]));
        assert!(kept.kept.lock().order.len() <= 2);
    }
}
