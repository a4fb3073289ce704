//! How a worker waits for events: it looks a few times more before it sleeps, while that is worth it.
//!
//! To sleep and to be woken costs this thread and the one that wakes it some 10 us of a core, more in a virtual machine.
//! Busy clients send again within less: 50 of them at `-P 16` put a worker to sleep 13,000 times a second, and it did
//! a quarter less than one that is so slow that it never comes to sleep.

use std::io;
use std::thread;
use std::time::Duration;

use mio::{Events, Poll};

use crate::server::process::clock::now_ns;

/// For how long it looks, in nanoseconds: what a sleep costs, so that looking in vain no more than doubles that.
const LOOK_NS: u64 = 10_000;
/// Sleeps between two looks, at most, when looking was in vain again and again.
const MOST_SKIPPED: u32 = 1024;

/// Tells whether looking is worth it, by how it went before.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// How many sleeps followed the last look in vain before the next one; 0 after one that found something.
    pause: u32,
    /// How many of them are left.
    left: u32,
}

impl Rest {
    /// Waits until there are events, for at most so long.
    pub fn wait(&mut self, poll: &mut Poll, events: &mut Events, timeout: Duration) -> io::Result<()> {
        if !timeout.is_zero() && self.is_time_to_look() {
            let until = now_ns() + LOOK_NS;
            while now_ns() < until {
                poll.poll(events, Some(Duration::ZERO))?;
                if !events.is_empty() {
                    self.looked(true);
                    return Ok(());
                }
                // Perhaps what we wait for needs this core.
                thread::yield_now();
            }
            self.looked(false);
        }
        poll.poll(events, Some(timeout))
    }

    fn is_time_to_look(&mut self) -> bool {
        let is_time = self.left == 0;
        self.left = self.left.saturating_sub(1);
        is_time
    }

    fn looked(&mut self, found: bool) {
        self.pause = if found { 0 } else { (2 * self.pause + 1).min(MOST_SKIPPED) };
        self.left = self.pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks in so many rounds, each of which finds something or not.
    fn looks(rest: &mut Rest, rounds: usize, found: bool) -> usize {
        (0..rounds)
            .filter(|_| {
                rest.is_time_to_look() && {
                    rest.looked(found);
                    true
                }
            })
            .count()
    }

    #[test]
    fn it_looks_each_time_while_something_comes_and_rarely_while_nothing_does() {
        let mut rest = Rest::default();
        assert_eq!(looks(&mut rest, 100, true), 100);
        assert_eq!(looks(&mut rest, 2048, false), 11);
        assert_eq!(looks(&mut rest, 10_250, false), 10);
        // One that finds something is enough.
        looks(&mut rest, 1025, true);
        assert_eq!(looks(&mut rest, 100, true), 100);
    }

    #[test]
    fn an_event_ends_the_wait_and_without_one_the_timeout_does() {
        let mut poll = Poll::new().expect("a poll");
        let waker = mio::Waker::new(poll.registry(), mio::Token(1)).expect("a waker");
        let (mut events, mut rest) = (Events::with_capacity(4), Rest::default());
        waker.wake().expect("it wakes");
        rest.wait(&mut poll, &mut events, Duration::from_secs(60)).expect("a wait");
        assert_eq!(events.iter().map(|e| e.token()).collect::<Vec<_>>(), [mio::Token(1)]);
        let began = now_ns();
        rest.wait(&mut poll, &mut events, Duration::from_millis(20)).expect("a wait");
        assert!(events.is_empty() && now_ns() - began >= 19_000_000);
    }
}
