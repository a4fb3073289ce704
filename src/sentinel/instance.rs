//! What is known of one primary, replica or other sentinel.

use std::collections::{BTreeMap, VecDeque};

use super::action::LinkId;
use super::failover::Failover;
use crate::base::time::MonoMs;

/// Place of an instance. Stable while it is known, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InstanceId(pub u64);

/// Place of a pair of links. Sentinels that watch several primaries with us are reached over one pair.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkIx(pub u64);

/// What an instance is for us.
#[expect(missing_docs, reason = "what the words mean stands in the documentation of Sentinel")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Primary,
    Replica,
    Sentinel,
}

impl Kind {
    /// The word of events and of the `flags` field.
    pub fn word(self) -> &'static str {
        match self {
            Self::Primary => "master",
            Self::Replica => "slave",
            Self::Sentinel => "sentinel",
        }
    }
}

/// Where an instance is reached: an IP address, or a name where `resolve-hostnames` allows it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Address {
    /// As the configuration or the other side wrote it.
    pub host: String,
    /// Of its clients; it has no other here.
    pub port: u16,
}

impl Address {
    /// Whatever `host` says: nothing is looked up.
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // As in names of replicas, where IPv6 addresses stand in brackets.
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What a node says that it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the words of ROLE and INFO, in ours")]
pub enum Role {
    Primary,
    Replica,
}

impl Role {
    /// As INFO and SENTINEL MASTER say it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Primary => "master",
            Self::Replica => "slave",
        }
    }
}

/// How far a replica is on its way to the promoted one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reconf {
    /// It was not told.
    #[default]
    None,
    /// It was told.
    Sent,
    /// It follows, and is being synchronised.
    InProgress,
    /// Its link to the promoted one is up.
    Done,
}

/// Where a list came from after SENTINEL RESET: entries from before count until they are confirmed or dropped.
pub type Unconfirmed = Option<MonoMs>;

/// A node or a sentinel that is watched or talked to.
#[derive(Clone, Debug)]
pub struct Instance {
    /// INFO may tell another [`Role`].
    pub kind: Kind,
    /// Of a primary: its name. Of a replica: its address. Of a sentinel: its run id.
    pub name: String,
    /// Where it was last known to be reached.
    pub address: Address,
    /// Empty while unknown.
    pub run_id: String,
    /// The primary that it belongs to; its own place for a primary.
    pub primary: InstanceId,
    /// The connections to it, which others may share.
    pub link: LinkIx,
    /// Subjectively down since.
    pub sdown: Option<MonoMs>,
    /// When it last became so; 0: never.
    pub sdown_last: MonoMs,
    /// When our last hello left.
    pub hello_sent: MonoMs,
    /// When SCRIPT KILL was sent because it is busy and down.
    pub script_kill_sent: bool,
    /// When the last INFO came. `None`: never.
    pub info_at: Option<MonoMs>,
    /// The last INFO as it came; empty before the first.
    pub info: Vec<u8>,
    /// When it was last asked for INFO; 0: never.
    pub info_asked: MonoMs,
    /// An INFO is on its way.
    pub info_pending: bool,
    /// What its last INFO called it; before that, what we take it for.
    pub role: Role,
    /// When the role last changed.
    pub role_since: MonoMs,
    /// Set by SENTINEL RESET.
    pub unconfirmed: Unconfirmed,
    /// Used for replicas alone.
    pub replica: ReplicaFacts,
    /// Used for sentinels alone.
    pub peer: PeerFacts,
    /// Of a primary, and of nothing else.
    pub watch: Option<Box<Watch>>,
}

/// What a replica tells of itself.
#[derive(Clone, Debug, Default)]
pub struct ReplicaFacts {
    /// The primary that it follows, by its last INFO; `?` before that.
    pub primary_host: String,
    /// 0: none.
    pub primary_port: u16,
    /// Since when it names this primary.
    pub primary_since: MonoMs,
    /// Whether its link to the primary is up.
    pub link_up: bool,
    /// Milliseconds that its link to the primary has been down; 0 when it is up, -1000 when it never was.
    pub link_down_ms: i64,
    /// `replica-priority`: the lowest is chosen first, 0 never.
    pub priority: u32,
    /// Bytes of the replication stream that it has: the greater, the better it is.
    pub offset: u64,
    /// `replica-announced`: whether clients are told of it.
    pub announced: bool,
    /// Only during a failover.
    pub reconf: Reconf,
    /// When it was told of the new primary; 0: never.
    pub reconf_sent: MonoMs,
    /// The failover has chosen it.
    pub promoted: bool,
    /// When its primary last named it, or it was added.
    pub listed: MonoMs,
    /// It was the primary, and has not been seen as a replica since.
    pub deposed: bool,
}

/// What another sentinel tells.
#[derive(Clone, Debug, Default)]
pub struct PeerFacts {
    /// When its last hello came.
    pub hello: MonoMs,
    /// It says that the primary is down.
    pub says_down: bool,
    /// When it last answered whether it is.
    pub answered: MonoMs,
    /// When it was last asked.
    pub asked: MonoMs,
    /// An answer is awaited.
    pub ask_pending: bool,
    /// Whom it voted for, by its last answer; `None`: nobody.
    pub leader: Option<String>,
    /// The epoch of that vote.
    pub leader_epoch: u64,
}

/// A primary that is watched: settings, who belongs to it, votes and failovers.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Sentinels that must see it down before it is objectively so.
    pub quorum: u32,
    /// Silence after which we think that it is down.
    pub down_after: MonoMs,
    /// Limit of a failover's phases; twice that passes between two attempts.
    pub failover_timeout: MonoMs,
    /// Replicas that are told of the new primary at a time.
    pub parallel_syncs: u32,
    /// What to log in with at it and its replicas; empty: the default user.
    pub auth_user: String,
    /// Empty: no login.
    pub auth_pass: String,
    /// Runs for each warning; empty: none.
    pub notification_script: String,
    /// Runs for each change of the primary's address; empty: none.
    pub reconfig_script: String,
    /// How long it may take to come back from a restart; 0: a restart is not told apart.
    pub reboot_down_after: MonoMs,
    /// `rename-command`, by the lower-case name.
    pub renames: BTreeMap<String, String>,
    /// Epoch of the failover that made it the primary: the greater one is believed.
    pub config_epoch: u64,
    /// Whom this sentinel voted for; `None`: nobody.
    pub leader: Option<String>,
    /// The epoch of that vote.
    pub leader_epoch: u64,
    /// The vote binds once this generation is on disk.
    pub vote_generation: u64,
    /// Objectively down since.
    pub odown: Option<MonoMs>,
    /// It restarted, and does not serve yet, since.
    pub reboot: Option<MonoMs>,
    /// By address.
    pub replicas: BTreeMap<String, InstanceId>,
    /// By run id; without ourselves.
    pub sentinels: BTreeMap<String, InstanceId>,
    /// The one under way, or the last.
    pub failover: Failover,
}

/// Connections to one address.
#[derive(Clone, Debug)]
pub struct Link {
    /// Where it connects to.
    pub address: Address,
    /// Instances reached over it.
    pub users: Vec<InstanceId>,
    /// Our questions and orders, and the answers.
    pub commands: Connection,
    /// Hellos of others; not used with sentinels.
    pub hellos: Connection,
    /// Since when a ping is unanswered.
    pub ping_waits: Option<MonoMs>,
    /// When the last ping left; 0: never.
    pub ping_sent: MonoMs,
    /// The last reply to a ping that says that it lives.
    pub last_ok: MonoMs,
    /// The last reply to a ping of any kind.
    pub last_pong: MonoMs,
    /// When connecting was last tried.
    pub tried: Option<MonoMs>,
    /// The last attempt to connect was refused or failed otherwise: nobody is there.
    pub refused: bool,
    /// Our own address on it; empty while unknown.
    pub local_ip: String,
}

/// One TCP connection, or the wish for one.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// The link that is open or being opened; `None`: neither.
    pub id: Option<LinkId>,
    /// It is open.
    pub up: bool,
    /// When it was asked for, or came up.
    pub since: MonoMs,
    /// When something last came.
    pub last_activity: MonoMs,
    /// What was asked, in order, and about whom.
    pub pending: VecDeque<(Question, InstanceId)>,
}

impl Connection {
    /// Neither open nor being opened.
    pub fn is_down(&self) -> bool {
        self.id.is_none()
    }
}

/// What a reply on a link of commands answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// PING.
    Ping,
    /// INFO.
    Info,
    /// PUBLISH of our hello.
    Hello,
    /// SENTINEL IS-MASTER-DOWN-BY-ADDR, which also asks for a vote.
    IsDown,
    /// Whatever is answered changes nothing.
    Other,
}

impl Link {
    /// A pair of links that nobody uses yet; `now` counts as the last time that it answered.
    pub fn new(address: Address, now: MonoMs) -> Self {
        Self {
            address,
            users: Vec::new(),
            commands: Connection::default(),
            hellos: Connection::default(),
            // As if a ping had been sent now: an instance that never answers is down after the same time.
            ping_waits: Some(now),
            ping_sent: 0,
            last_ok: now,
            last_pong: now,
            tried: None,
            refused: false,
            local_ip: String::new(),
        }
    }

    /// It is judged from now on as if it were new.
    pub fn judge_anew(&mut self, now: MonoMs) {
        (self.last_ok, self.last_pong) = (now, now);
        self.ping_waits = self.ping_waits.map(|_| now);
    }

    /// For how long nothing has shown that it lives.
    pub fn silence(&self, now: MonoMs) -> MonoMs {
        match self.ping_waits {
            Some(since) => now.saturating_sub(since),
            None if !self.commands.up => now.saturating_sub(self.last_ok),
            None => 0,
        }
    }
}

impl Instance {
    /// One that nothing is known of yet; `now` counts as the last time that it was heard of.
    pub fn new(
        kind: Kind,
        name: &str,
        address: Address,
        primary: InstanceId,
        link: LinkIx,
        now: MonoMs,
    ) -> Self {
        let role = if kind == Kind::Replica { Role::Replica } else { Role::Primary };
        Self {
            kind,
            name: name.to_owned(),
            address,
            run_id: String::new(),
            primary,
            link,
            sdown: None,
            sdown_last: 0,
            hello_sent: 0,
            script_kill_sent: false,
            info_at: None,
            info: Vec::new(),
            info_asked: 0,
            info_pending: false,
            role,
            role_since: now,
            unconfirmed: None,
            replica: ReplicaFacts {
                primary_host: "?".into(),
                primary_since: now,
                priority: 100,
                announced: true,
                listed: now,
                ..ReplicaFacts::default()
            },
            peer: PeerFacts { hello: now, ..PeerFacts::default() },
            watch: None,
        }
    }
}
