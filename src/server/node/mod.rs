//! What all threads of a node share.
//!
//! | file | concept |
//! |---|---|
//! | `connected`, `describe` | the clients, for whoever asks about them; one line each, as CLIENT LIST shows it |
//! | `logins` | what follows when the rights of users change, and what they were refused |
//! | `monitors`, `trackers` | clients in MONITOR mode, and those that track keys |
//! | `pause` | commands that wait until a time |
//! | `stopped` | what DEBUG has stopped |
//! | `counters`, `rates`, `expiry` | what the node counts of itself, how fast it grows, and what the search for dead keys costs |
//! | `slowlog`, `latency` | what took long |
//! | `fields` | the fields of a section of INFO |
//! | `host` | what an executor wants of its node |
//! | `threads` | the ways to the threads |
//! | `tuning` | what directives mean for these parts |

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::acl::{Accounts, User};
use crate::base::time::{MonoMs, UnixMs};
use crate::command::gate;
use crate::command::spec::{Mode, flags};
use crate::config::Config;
use crate::config::compound::KeyspaceEvents;
use crate::exec::Shared;
use crate::exec::observe::Seen;
use crate::keyspace::db::Notice;
use crate::pubsub::{Registry, Space};
use crate::server::commands::migrate::courier::Couriers;
use crate::server::control::bus::Bus;
use crate::server::control::replication::Replication;
use crate::server::disk::aof::Aof;
use crate::server::disk::rdb_file::SaveState;
use crate::server::net::mailbox::Mail;
use crate::server::net::tls::Tls;
use crate::server::node::connected::Clients;
use crate::server::node::counters::Counters;
use crate::server::node::latency::LatencyMonitor;
use crate::server::node::logins::Denials;
use crate::server::node::monitors::Monitors;
use crate::server::node::pause::Pauses;
use crate::server::node::slowlog::SlowLog;
use crate::server::node::stopped::Stopped;
use crate::server::node::threads::Threads;
use crate::server::node::trackers::Trackers;
use crate::server::process::limits::OomScore;
use crate::server::process::logging;
use crate::server::process::supervise::Supervisor;
use crate::server::process::title::Title;
use crate::server::sentinel::Driver;
use crate::server::shutdown::ShutdownState;

pub mod connected;
pub mod counters;
pub mod describe;
pub mod expiry;
pub mod fields;
pub mod host;
pub mod latency;
pub mod logins;
pub mod monitors;
pub mod pause;
pub mod rates;
pub mod slowlog;
pub mod stopped;
pub mod threads;
pub mod trackers;
pub mod tuning;

/// A running node.
pub struct Node {
    /// What its executors share.
    pub shared: &'static Shared,
    /// The directives as they are now; replaced as a whole.
    pub config: ArcSwap<Config>,
    /// Held while the configuration changes.
    pub config_change: Mutex<()>,
    /// Who is connected.
    pub people: People,
    /// What the node remembers of what it did.
    pub records: Records,
    /// The other servers it deals with.
    pub peers: Peers,
    /// What it keeps on disk.
    pub files: Files,
    /// How it was started, runs and ends.
    pub life: Life,
}

/// When the longest reply of a client is forgotten, unless DEBUG REPLYBUFFER says otherwise.
pub const REPLY_PEAK_MS: u64 = 5000;

/// The clients of a node: who they are, what they may do, and what they listen to.
pub struct People {
    /// Everybody who is connected.
    pub clients: Clients,
    /// The users of ACL, and who is logged in as whom.
    pub accounts: Accounts,
    /// What users were refused.
    pub denials: Denials,
    /// Workers that have not yet looked at what their clients may do now.
    pub rights_pending: Mutex<usize>,
    /// Who listens to which channels.
    pub pubsub: Registry,
    /// Clients that said MONITOR.
    pub monitors: Monitors,
    /// Clients that said CLIENT TRACKING ON.
    pub trackers: Trackers,
    /// Milliseconds after which the longest reply of a client is forgotten (DEBUG REPLYBUFFER).
    pub reply_peak_ms: AtomicU64,
    /// Workers give back what a long reply took (DEBUG REPLYBUFFER).
    pub reply_resizing: AtomicBool,
}

/// What the node counts and notes of itself.
pub struct Records {
    /// For INFO.
    pub counters: Counters,
    /// SLOWLOG.
    pub slowlog: SlowLog,
    /// LATENCY HISTORY and LATENCY LATEST.
    pub latency: LatencyMonitor,
}

/// Other servers, and how they are reached.
pub struct Peers {
    /// Whom it follows, and who follows it.
    pub replication: Replication,
    /// The cluster bus; not set outside cluster mode.
    pub bus: OnceLock<Arc<Bus>>,
    /// What watches others, in a sentinel.
    pub sentinel: OnceLock<Arc<Driver>>,
    /// Threads that carry keys to other nodes for MIGRATE.
    pub couriers: Couriers,
    /// Certificates and keys in use.
    pub tls: Tls,
}

/// What is kept on disk.
pub struct Files {
    /// Snapshots to the RDB file.
    pub save: SaveState,
    /// The append-only file.
    pub aof: Aof,
}

/// A node from its start to its end.
pub struct Life {
    /// 40 hexadecimal digits, drawn at the start.
    pub run_id: String,
    started: Instant,
    /// When it started, Unix milliseconds.
    pub started_unix_ms: UnixMs,
    /// What it was started with.
    pub origin: Origin,
    /// The ways to its threads.
    pub threads: Threads,
    /// CLIENT PAUSE and others, each of its purpose.
    pub pauses: Mutex<Pauses>,
    /// What DEBUG has stopped.
    pub stopped: Stopped,
    /// A shutdown under way.
    pub shutdown: ShutdownState,
}

/// What the node was started with.
#[derive(Default)]
pub struct Origin {
    /// A node with data, or a sentinel.
    pub mode: Mode,
    /// Where log lines go; `None` in tests.
    pub log: Option<logging::Log>,
    /// What ps shows.
    pub title: Option<Title>,
    /// Absolute, because the server changes its directory.
    pub config_file: Option<PathBuf>,
    /// Absolute path of the program; empty when the system does not tell.
    pub executable: PathBuf,
    /// Told when the node is ready and when it ends.
    pub supervisor: Supervisor,
    /// What the kernel was told (`oom-score-adj`).
    pub oom_score: Mutex<OomScore>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("run_id", &self.life.run_id).finish_non_exhaustive()
    }
}

impl Node {
    /// A node for so many `executors`, that does not run yet. `run_id` also seeds what is drawn at random.
    pub fn new(
        shared: &'static Shared,
        config: Config,
        executors: usize,
        run_id: String,
        origin: Origin,
    ) -> Self {
        let seed = u64::from_str_radix(run_id.get(..16).unwrap_or_default(), 16).unwrap_or_default();
        Self {
            shared,
            config: ArcSwap::from_pointee(config),
            config_change: Mutex::default(),
            people: People {
                clients: Clients::default(),
                accounts: Accounts::new(User::unprotected(&shared.commands)),
                denials: Denials::default(),
                rights_pending: Mutex::default(),
                pubsub: Registry::default(),
                monitors: Monitors::default(),
                trackers: Trackers::default(),
                reply_peak_ms: AtomicU64::new(REPLY_PEAK_MS),
                reply_resizing: AtomicBool::new(true),
            },
            records: Records {
                counters: Counters::new(executors, shared.commands.len()),
                slowlog: SlowLog::default(),
                latency: LatencyMonitor::default(),
            },
            peers: Peers {
                replication: Replication::new(seed),
                bus: OnceLock::new(),
                sentinel: OnceLock::new(),
                couriers: Couriers::default(),
                tls: Tls::default(),
            },
            files: Files { save: SaveState::new(unix_ms()), aof: Aof::default() },
            life: Life {
                run_id,
                started: Instant::now(),
                started_unix_ms: unix_ms(),
                origin,
                threads: Threads::default(),
                pauses: Mutex::default(),
                stopped: Stopped::default(),
                shutdown: ShutdownState::default(),
            },
        }
    }

    /// Shows in ps what the node is and where it listens.
    pub fn show_title(&self, config: &Config) {
        let Some(title) = &self.life.origin.title else { return };
        let mode = match self.mode_name() {
            "standalone" => String::new(),
            special => format!("[{special}]"),
        };
        let file =
            self.life.origin.config_file.as_ref().map_or_else(|| "-".to_owned(), |p| p.display().to_string());
        title.show(config, &mode, &file);
    }

    /// Tells the latency monitor how long something took that the node did by itself.
    pub fn note_event(&self, event: &'static str, nanos: u64) {
        self.records.latency.note(event, nanos, unix_ms() / 1000);
    }

    /// What the node is, as HELLO and INFO call it.
    pub fn mode_name(&self) -> &'static str {
        match self.life.origin.mode {
            Mode::Sentinel => "sentinel",
            Mode::Data if self.config.load().cluster_enabled => "cluster",
            Mode::Data => "standalone",
        }
    }

    /// Milliseconds since the node started, on the monotonic clock.
    pub fn mono_ms(&self) -> MonoMs {
        self.life.started.elapsed().as_millis() as MonoMs
    }

    /// Milliseconds since 1970 as the wall clock would tell if nobody had set it since the start: for what happens by
    /// time, but not at a time that somebody has named.
    pub fn steady_ms(&self) -> UnixMs {
        self.life.started_unix_ms + self.mono_ms() as UnixMs
    }

    /// As [`steady_ms`](Self::steady_ms), in seconds.
    pub fn steady_s(&self) -> u64 {
        self.steady_ms() as u64 / 1000
    }

    /// Holds a thread that is neither a worker nor a runtime's while DEBUG SLEEP lasts.
    #[inline]
    pub fn sleep_along(&self) {
        let until = self.life.stopped.until_ms.load(Ordering::Acquire);
        if until > 0 {
            std::thread::sleep(Duration::from_millis(until.saturating_sub(self.mono_ms())));
        }
    }

    /// Whether dead keys are deleted in the background (`DEBUG SET-ACTIVE-EXPIRE`, CLIENT PAUSE).
    pub fn active_expire(&self) -> bool {
        !self.life.stopped.expiry.load(Ordering::Relaxed)
            && !self.life.stopped.cron.load(Ordering::Relaxed)
            && self.shared.gate.load(Ordering::Relaxed) & gate::PAUSED_WRITES == 0
    }

    /// Redirects blocked clients whose slot has left.
    pub fn redirect_blocked(&self) {
        if self.people.clients.blocked.load(Ordering::Relaxed) > 0 {
            self.send_all(|| Mail::SlotsChanged);
        }
    }

    /// Whether the node follows a primary.
    pub fn is_replica(&self) -> bool {
        self.shared.is_replica.load(Ordering::Relaxed)
    }

    /// Sends a message to the worker of this number.
    pub fn send(&self, worker: usize, mail: Mail) {
        self.life.threads.send(worker, mail);
    }

    /// Sends a message to every worker.
    pub fn send_all(&self, mail: impl Fn() -> Mail) {
        self.life.threads.send_all(mail);
    }

    /// Publishes a message to this node's listeners; returns how many there are. Also for messages
    /// that came from our primary or over the cluster bus.
    pub fn publish(&self, space: Space, channel: &[u8], message: &[u8]) -> usize {
        self.people.pubsub.publish(space, channel, message, |who, bytes| {
            self.send(who.worker, Mail::Push { token: who.token, client: who.client, bytes });
        })
    }

    /// Publishes an event of a key under the names that `notify-keyspace-events` asks for, on this node
    /// only: each node of a cluster tells of its own keys.
    pub fn publish_notice(&self, notice: &Notice) {
        let (db, name) = (notice.db, notice.event.name());
        let events = &self.shared.keyspace.events;
        if events.has(KeyspaceEvents::KEYSPACE) {
            let channel = [format!("__keyspace@{db}__:").as_bytes(), &notice.key].concat();
            self.publish(Space::Global, &channel, name.as_bytes());
        }
        if events.has(KeyspaceEvents::KEYEVENT) {
            self.publish(Space::Global, format!("__keyevent@{db}__:{name}").as_bytes(), &notice.key);
        }
    }

    /// Notes a command that took long, for SLOWLOG and for LATENCY.
    pub fn note_long(&self, seen: &Seen<'_>) {
        let time = unix_ms() / 1000;
        let event = if seen.command.has(flags::FAST) { "fast-command" } else { "command" };
        self.records.latency.note(event, seen.nanos, time);
        let config = self.config.load();
        let concerned =
            u64::try_from(config.slowlog_log_slower_than).is_ok_and(|from| seen.nanos / 1000 >= from);
        if !concerned || seen.command.has(flags::SKIP_SLOWLOG) {
            return;
        }
        // A client that was blocked is known by its number alone.
        let (addr, name) = match self.people.clients.get(seen.client.id) {
            // What a script calls is nobody's, as in Redis.
            _ if seen.scripted => Default::default(),
            Some(entry) if seen.client.addr.is_empty() => {
                (entry.addr.clone(), entry.state.lock().name.clone())
            }
            _ => (seen.client.addr.clone(), seen.client.name.clone()),
        };
        self.records.slowlog.add(seen, time, addr, name, config.slowlog_max_len as usize);
    }

    /// CONFIG RESETSTAT.
    pub fn reset_stats(&self) {
        self.records.counters.reset();
        let keys = &self.shared.keyspace.stats;
        for counter in [
            &self.people.clients.accepted,
            &self.people.clients.rejected,
            &self.people.clients.evicted,
            &keys.expired_keys,
            &keys.expired_fields,
            &keys.evicted_keys,
            &keys.lazily_freed,
            &self.shared.scripts.evicted,
            &self.files.save.saves,
            &self.files.aof.delayed_fsync,
            &self.files.aof.rewrites,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
        self.people.denials.reset_counters();
        self.peers.replication.reset_stats();
    }

    /// Brings the gate's conditions that follow from the configuration and the role up to date.
    pub fn settle_gate(&self) {
        self.peers.replication.settle(self);
    }
}

/// Milliseconds since the Unix epoch.
pub fn unix_ms() -> UnixMs {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as UnixMs)
}
