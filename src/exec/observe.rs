//! Commands that have run, shown to those who watch: the long ones to the slow log and the latency monitor, all to
//! MONITOR. Together they cost a call one comparison while they have nothing to see.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::call::Call;
use super::{Executor, Host};
use crate::command::spec::flags;
use crate::command::{Client, Command};

/// What is looked at, for every thread to test.
#[derive(Debug)]
pub struct Observers {
    /// A call that takes at least so many nanoseconds is shown to [`Host::took_long`]; `u64::MAX`: none is.
    pub long_from: AtomicU64,
    /// Every call is shown to [`Host::ran`]: somebody monitors.
    pub monitored: AtomicBool,
    /// Times are counted in histograms (`latency-tracking`).
    pub histograms: AtomicBool,
}

impl Default for Observers {
    fn default() -> Self {
        Self {
            long_from: AtomicU64::new(u64::MAX),
            monitored: AtomicBool::new(false),
            histograms: AtomicBool::new(true),
        }
    }
}

/// A command that has run.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The row that ran.
    pub command: &'static Command,
    /// All words, the name included; secrets are in it.
    pub args: &'a [&'a [u8]],
    /// Who sent it, itself or by a script.
    pub client: &'a Client,
    /// A script called it.
    pub scripted: bool,
    /// How long it took.
    pub nanos: u64,
}

impl Seen<'_> {
    /// The arguments, with what must not be told (passwords) replaced.
    pub fn told(&self) -> Vec<&[u8]> {
        let mut told = self.args.to_vec();
        for at in (self.command.secrets)(self.args) {
            told[at] = b"(redacted)";
        }
        told
    }
}

impl Executor {
    /// Counts a call that began at `began` and ends now, and shows it to those who look at long ones.
    #[inline(always)]
    pub(super) fn measure(
        &mut self,
        host: &mut dyn Host,
        call: &Call<'_>,
        client: &Client,
        began: u64,
        scripted: bool,
    ) {
        let observers = &self.shared.observers;
        let long_from = observers.long_from.load(Ordering::Relaxed);
        if call.brief && self.stopwatch.leaves(call.id, long_from) {
            return;
        }
        let histograms = observers.histograms.load(Ordering::Relaxed);
        let nanos = self.stopwatch.count(&self.stats, call.id, began, 1, histograms);
        if nanos >= long_from {
            show_long(host, call, client, scripted, nanos);
        }
    }

    /// Shows a call to those who monitor. Under its locks, so that their lines stand in the order of effects.
    #[inline(always)]
    pub(super) fn show(&self, host: &mut dyn Host, call: &Call<'_>, client: &Client, scripted: bool) {
        if self.shared.observers.monitored.load(Ordering::Relaxed) {
            show_call(host, call, client, scripted);
        }
    }
}

#[cold]
fn show_long(host: &mut dyn Host, call: &Call<'_>, client: &Client, scripted: bool, nanos: u64) {
    host.took_long(&Seen { command: call.command, args: call.args, client, scripted, nanos });
}

/// As in Redis, commands of administrators are not shown: they may hold secrets.
#[cold]
fn show_call(host: &mut dyn Host, call: &Call<'_>, client: &Client, scripted: bool) {
    // A script is shown here although its row says otherwise: Redis shows it from within.
    let hidden = call.command.flags & (flags::ADMIN | flags::SKIP_MONITOR) != 0;
    if !hidden || call.command.has(flags::RUNS_SCRIPT) {
        host.ran(&Seen { command: call.command, args: call.args, client, scripted, nanos: 0 });
    }
}
