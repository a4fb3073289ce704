//! How the thread that writes is woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;
use std::thread::{self, Thread};

/// Wakes the thread from the log. Only `always` is in a hurry: otherwise it looks by itself while there is something
/// to do, so that workers need not wake it once a round.
#[derive(Debug)]
pub(super) struct Bell {
    thread: Thread,
    pub eager: AtomicBool,
    pub asleep: AtomicBool,
}

impl Bell {
    /// Wakes the thread that calls, from now on.
    pub fn of_this_thread() -> Self {
        Self { thread: thread::current(), eager: AtomicBool::new(true), asleep: AtomicBool::new(false) }
    }

    /// Wakes it in any case.
    pub fn ring(&self) {
        self.thread.unpark();
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.eager.load(Ordering::Relaxed)
            || (self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel))
        {
            self.thread.unpark();
        }
    }
}
