//! Faults that `DEBUG DISK-FAULT` asks for, so that tests see what the node does on a bad disk.
//!
//! The disk is one for the whole process, and so are its faults: this is state that no value could carry.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of DEBUG DISK-FAULT")]
pub enum Step {
    Open,
    Write,
    Sync,
    Truncate,
    Rename,
    Remove,
}

/// What goes wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It fails with this number of an error.
    Error(i32),
    /// A write takes half of what it is given, until nothing is left of it: then the disk is full.
    Short,
    /// It takes longer.
    Slow(Duration),
}

#[derive(Debug)]
struct Fault {
    step: Step,
    /// A part of the name of the files that it happens to.
    name: String,
    trouble: Trouble,
}

static ARMED: AtomicBool = AtomicBool::new(false);
static FAULTS: Mutex<Vec<Fault>> = Mutex::new(Vec::new());

/// From now on this happens at each such step of files whose name contains `name`.
pub fn add(step: Step, name: &str, trouble: Trouble) {
    FAULTS.lock().push(Fault { step, name: name.to_owned(), trouble });
    ARMED.store(true, Ordering::Release);
}

/// The disk is good again.
pub fn clear() {
    ARMED.store(false, Ordering::Release);
    FAULTS.lock().clear();
}

/// Before a step: how many of `len` bytes may be written, or the error.
#[inline]
pub(super) fn check(step: Step, name: &str, len: usize) -> io::Result<usize> {
    if ARMED.load(Ordering::Relaxed) { happen(step, name, len) } else { Ok(len) }
}

#[cold]
fn happen(step: Step, name: &str, len: usize) -> io::Result<usize> {
    let hit = |fault: &&Fault| fault.step == step && name.contains(&fault.name);
    let trouble = FAULTS.lock().iter().find(hit).map(|fault| fault.trouble);
    match trouble {
        None => Ok(len),
        Some(Trouble::Error(number)) => Err(io::Error::from_raw_os_error(number)),
        Some(Trouble::Short) if len < 2 => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        Some(Trouble::Short) => Ok(len / 2),
        Some(Trouble::Slow(pause)) => {
            thread::sleep(pause);
            Ok(len)
        }
    }
}
