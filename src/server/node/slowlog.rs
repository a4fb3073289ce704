//! The slow log: the last commands that took longer than `slowlog-log-slower-than`.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::exec::observe::Seen;

/// Longer lines of arguments, and longer arguments, are cut.
const MOST_ARGUMENTS: usize = 32;
const MOST_BYTES: usize = 128;

/// One command that took long.
#[derive(Debug)]
pub struct Entry {
    /// Counts up from 0; never used again, also after SLOWLOG RESET.
    pub id: u64,
    /// Unix time in seconds.
    pub time: i64,
    /// How long it took, microseconds.
    pub micros: u64,
    /// Shortened, and without secrets.
    pub args: Vec<Vec<u8>>,
    /// Of the client, as CLIENT LIST shows it.
    pub addr: String,
    /// Of the client (CLIENT SETNAME); empty: none.
    pub name: Arc<[u8]>,
}

/// The newest entry comes first.
#[derive(Debug, Default)]
pub struct SlowLog(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    entries: VecDeque<Arc<Entry>>,
    next_id: u64,
}

impl SlowLog {
    /// Notes a command of the client at `addr` called `name`, and forgets what exceeds `most` entries.
    pub fn add(&self, seen: &Seen<'_>, time: i64, addr: String, name: Arc<[u8]>, most: usize) {
        let args = shortened(&seen.told());
        let mut inner = self.0.lock();
        let id = inner.next_id;
        inner.next_id += 1;
        inner.entries.push_front(Arc::new(Entry { id, time, micros: seen.nanos / 1000, args, addr, name }));
        inner.entries.truncate(most);
    }

    /// SLOWLOG LEN.
    pub fn len(&self) -> usize {
        self.0.lock().entries.len()
    }

    /// No entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The newest entries.
    pub fn newest(&self, most: usize) -> Vec<Arc<Entry>> {
        self.0.lock().entries.iter().take(most).cloned().collect()
    }

    /// SLOWLOG RESET.
    pub fn reset(&self) {
        self.0.lock().entries.clear();
    }
}

fn shortened(args: &[&[u8]]) -> Vec<Vec<u8>> {
    let shown = if args.len() > MOST_ARGUMENTS { MOST_ARGUMENTS - 1 } else { args.len() };
    let mut out: Vec<Vec<u8>> = args[..shown].iter().map(|arg| shortened_arg(arg)).collect();
    if shown < args.len() {
        out.push(format!("... ({} more arguments)", args.len() - shown).into());
    }
    out
}

fn shortened_arg(arg: &[u8]) -> Vec<u8> {
    match arg.split_at_checked(MOST_BYTES) {
        Some((head, rest)) if !rest.is_empty() => {
            [head, format!("... ({} more bytes)", rest.len()).as_bytes()].concat()
        }
        _ => arg.to_vec(),
    }
}
