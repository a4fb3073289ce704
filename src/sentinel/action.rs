//! What goes into the state machine, and what comes out of it.

use super::settings::Line;
pub use crate::base::log::Level;
use crate::base::time::MonoMs;
use crate::resp::decode::Value;

/// One connection, or the attempt to make one. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What the driver tells the state machine. `script` is a script's number; addresses are a link's two ends.
#[expect(missing_docs, reason = "the fields are told above")]
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Due at [`next_tick`](super::Sentinel::next_tick) or earlier.
    Tick,
    /// A link asked for by [`Action::Connect`] is open.
    Connected {
        link: LinkId,
        peer_ip: String,
        local_ip: String,
    },
    /// A link failed, was refused or ended. Not for links closed by [`Action::Close`].
    Closed {
        link: LinkId,
    },
    /// One reply, or one message of a subscription.
    Reply {
        link: LinkId,
        reply: Value,
    },
    /// What [`Action::Resolve`] found; `None`: nothing.
    Resolved {
        host: String,
        ip: Option<String>,
    },
    /// [`Action::Persist`] of this generation is on disk, or could not be written.
    Persisted {
        generation: u64,
        done: bool,
    },
    /// A script runs under this process id.
    ScriptStarted {
        script: u64,
        pid: u32,
    },
    ScriptEnded {
        script: u64,
        end: ScriptEnd,
    },
}

/// How a script ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptEnd {
    /// Exit status.
    Exit(i32),
    /// The signal that killed it.
    Signal(i32),
    /// It could not be started.
    NotStarted,
}

/// What the driver is to do, in this order. `script` is a script's number.
///
/// A vote binds whoever cast it, also after a crash: it leaves this sentinel only after the event
/// [`Persisted`](Event::Persisted) of its generation. The machine sees to that for what it sends; for the answer
/// to SENTINEL IS-MASTER-DOWN-BY-ADDR the driver asks [`answer`](super::Sentinel::answer) after that event.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are told above")]
pub enum Action {
    /// Write these lines (without the word `sentinel` in front) into the configuration file, and sync them.
    /// Answered by `Persisted`.
    Persist {
        generation: u64,
        lines: Vec<Line>,
    },
    /// Open a link; answered by `Connected` or `Closed`.
    Connect {
        link: LinkId,
        host: String,
        port: u16,
    },
    /// Close it now; what was queued on it is dropped. Not answered.
    Close(LinkId),
    /// Send a command; its reply comes back in order.
    Send {
        link: LinkId,
        words: Vec<String>,
    },
    /// Look a name up; answered by `Resolved`.
    Resolve {
        host: String,
    },
    /// A message for local subscribers.
    Publish {
        channel: String,
        payload: String,
    },
    /// Run a program without a shell; answered by `ScriptStarted` and `ScriptEnded`.
    RunScript {
        script: u64,
        path: String,
        arguments: Vec<String>,
    },
    /// It ran for too long.
    KillScript {
        script: u64,
    },
    /// SENTINEL SIMULATE-FAILURE: do nothing more; end the process once the last state is written, or failed to be.
    Crash,
    Log {
        level: Level,
        text: String,
    },
}

/// How long things take, milliseconds. SENTINEL DEBUG shows and changes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two INFO to an instance; a replica is asked every second while something is wrong.
    pub info_period: MonoMs,
    /// Between two PING to an instance, unless `down-after-milliseconds` is shorter.
    pub ping_period: MonoMs,
    /// Between two questions to another sentinel whether it sees the primary down, too.
    pub ask_period: MonoMs,
    /// Between two of our hellos to an instance.
    pub publish_period: MonoMs,
    /// `down-after-milliseconds` of primaries that come without one.
    pub default_down_after: MonoMs,
    /// `failover-timeout` of primaries that come without one.
    pub default_failover_timeout: MonoMs,
    /// A longer gap between two ticks begins TILT: the process stood still, or the clock leapt.
    pub tilt_trigger: MonoMs,
    /// How long TILT lasts after the last such gap.
    pub tilt_period: MonoMs,
    /// A replica that was told of the new primary counts as reached after so long, whatever it does.
    pub slave_reconf_timeout: MonoMs,
    /// A silent link is opened anew, but not before it is so old.
    pub min_link_reconnect_period: MonoMs,
    /// A failover of ours that has not won its votes by then is given up.
    pub election_timeout: MonoMs,
    /// A script that runs for longer is killed.
    pub script_max_runtime: MonoMs,
    /// Before a script is tried again for the first time; doubled each time.
    pub script_retry_delay: MonoMs,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            info_period: 10_000,
            ping_period: 1000,
            ask_period: 1000,
            publish_period: 2000,
            default_down_after: 30_000,
            default_failover_timeout: 180_000,
            tilt_trigger: 2000,
            tilt_period: 30_000,
            slave_reconf_timeout: 10_000,
            min_link_reconnect_period: 15_000,
            election_timeout: 10_000,
            script_max_runtime: 60_000,
            script_retry_delay: 30_000,
        }
    }
}

impl Timing {
    /// Every value under the name that SENTINEL DEBUG knows it by.
    pub fn named(&mut self) -> [(&'static str, &mut MonoMs); 13] {
        [
            ("INFO-PERIOD", &mut self.info_period),
            ("PING-PERIOD", &mut self.ping_period),
            ("ASK-PERIOD", &mut self.ask_period),
            ("PUBLISH-PERIOD", &mut self.publish_period),
            ("DEFAULT-DOWN-AFTER", &mut self.default_down_after),
            ("DEFAULT-FAILOVER-TIMEOUT", &mut self.default_failover_timeout),
            ("TILT-TRIGGER", &mut self.tilt_trigger),
            ("TILT-PERIOD", &mut self.tilt_period),
            ("SLAVE-RECONF-TIMEOUT", &mut self.slave_reconf_timeout),
            ("MIN-LINK-RECONNECT-PERIOD", &mut self.min_link_reconnect_period),
            ("ELECTION-TIMEOUT", &mut self.election_timeout),
            ("SCRIPT-MAX-RUNTIME", &mut self.script_max_runtime),
            ("SCRIPT-RETRY-DELAY", &mut self.script_retry_delay),
        ]
    }
}
