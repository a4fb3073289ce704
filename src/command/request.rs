//! What commands ask of the node: everything that needs more than the data and the client.
//!
//! A handler checks and parses its arguments into one of these; the server fulfils it and writes
//! the reply. So handlers know nothing of sockets, files, threads or other clients.

use super::Fail;
use super::client::{Role, SyncRequest};
pub use crate::pubsub::Space;

/// A request to the node.
#[derive(Debug)]
pub enum Request {
    Auth(Credentials),
    Hello(Hello),
    /// The part of RESET that is not the executor's: name, protocol, subscriptions, user.
    Reset,
    Client(ClientRequest),
    PubSub(PubSubRequest),
    Info {
        /// Lower case; empty for the default ones.
        sections: Vec<String>,
    },
    Replication(ReplicationRequest),
    Time,
    Save,
    BackgroundSave {
        schedule: bool,
    },
    LastSave,
    /// FLUSHALL has emptied all databases.
    Flushed,
    Cluster(ClusterRequest),
    Migrate(Migrate),
    Config(ConfigRequest),
    /// COMMAND, answered from the table of commands under their present names.
    Commands(CommandsRequest),
    /// The words behind DEBUG: whether the client may say them at all is the configuration's affair.
    Debug(Vec<Vec<u8>>),
    Shutdown(Shutdown),
}

/// What concerns replicas and primaries.
#[derive(Debug)]
pub enum ReplicationRequest {
    /// The words behind REPLCONF.
    Replconf(Vec<Vec<u8>>),
    Sync(SyncRequest),
    /// REPLICAOF; `None`: no one.
    Follow(Option<(String, u16)>),
    Role,
    Wait {
        /// WAITAOF: whether the log must be on this node's own disk, too, and on the replicas' disks. `None`:
        /// WAIT, which counts what replicas have applied.
        local: Option<bool>,
        replicas: usize,
        /// 0: for ever.
        timeout_ms: u64,
        /// False inside a transaction, where the answer is given at once.
        may_wait: bool,
    },
}

/// CLUSTER, checked for form. Node ids come as they were written.
#[derive(Debug)]
pub enum ClusterRequest {
    Info,
    Nodes,
    SlotMap,
    Shards,
    Links,
    MyId,
    MyShardId,
    Replicas(Vec<u8>),
    CountFailureReports(Vec<u8>),
    Meet {
        ip: String,
        port: u16,
        /// `None`: 10,000 above the port.
        bus_port: Option<u16>,
    },
    Forget(Vec<u8>),
    Replicate(Vec<u8>),
    Failover(Failover),
    Reset {
        hard: bool,
    },
    Slots(SlotChange, Vec<u16>),
    FlushSlots,
    /// A replica refuses before it looks at mistakes in the arguments.
    SetSlot(Result<(u16, SlotMove), Fail>),
    BumpEpoch,
    SetConfigEpoch(i64),
    SaveConfig,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotChange {
    Add,
    Delete,
}

/// How CLUSTER FAILOVER takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failover {
    /// With the primary's help, losing nothing.
    Graceful,
    /// Without the primary, with the others' votes.
    Force,
    /// Without votes.
    Takeover,
}

/// CLUSTER SETSLOT.
#[derive(Debug)]
pub enum SlotMove {
    Migrating(Vec<u8>),
    Importing(Vec<u8>),
    Node(Vec<u8>),
    Stable,
}

/// MIGRATE, checked for form.
#[derive(Debug)]
pub struct Migrate {
    pub host: String,
    pub port: u16,
    pub db: i64,
    pub timeout: std::time::Duration,
    pub copy: bool,
    pub replace: bool,
    /// User, if one was named, and password.
    pub auth: Option<(Option<Vec<u8>>, Vec<u8>)>,
    pub keys: Vec<Vec<u8>>,
}

/// A user and a password in plain text.
#[derive(Debug)]
pub struct Credentials {
    /// `None`: the default user, by AUTH of one argument.
    pub user: Option<Vec<u8>>,
    pub password: Vec<u8>,
}

/// HELLO, checked for form.
#[derive(Debug)]
pub struct Hello {
    /// 2 or 3; `None`: stay.
    pub protocol: Option<u8>,
    pub credentials: Option<Credentials>,
    pub name: Option<Vec<u8>>,
}

/// The subcommands of CLIENT that concern more than the asking connection.
#[derive(Debug)]
pub enum ClientRequest {
    Info,
    List(ListFilter),
    /// The form of one argument: the client at this address.
    KillAddress(Vec<u8>),
    Kill(KillFilter),
    Pause {
        for_ms: u64,
        all: bool,
    },
    Unpause,
    Unblock {
        id: u64,
        with_error: bool,
    },
}

/// Which clients CLIENT LIST shows.
#[derive(Debug, Default)]
pub enum ListFilter {
    #[default]
    All,
    Kind(ClientKind),
    Ids(Vec<u64>),
}

/// Classes of clients as CLIENT LIST TYPE names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    Normal,
    Primary,
    Replica,
    PubSub,
}

impl ClientKind {
    pub fn from_name(name: &[u8]) -> Option<Self> {
        [
            ("normal", Self::Normal),
            ("slave", Self::Replica),
            ("replica", Self::Replica),
            ("pubsub", Self::PubSub),
            ("master", Self::Primary),
        ]
        .into_iter()
        .find(|(n, _)| super::is(name, n))
        .map(|(_, kind)| kind)
    }

    /// The class of a client of a role with or without subscriptions.
    pub fn of(role: Role, subscribed: bool) -> Self {
        match role {
            Role::Replica => Self::Replica,
            Role::Primary => Self::Primary,
            Role::Normal if subscribed => Self::PubSub,
            Role::Normal => Self::Normal,
        }
    }
}

/// Which clients CLIENT KILL closes: those that meet every condition given.
#[derive(Debug)]
pub struct KillFilter {
    pub id: Option<u64>,
    pub kind: Option<ClientKind>,
    pub user: Option<Vec<u8>>,
    pub address: Option<Vec<u8>>,
    pub local_address: Option<Vec<u8>>,
    /// Seconds since the connection was made, at least.
    pub max_age: Option<u64>,
    pub skip_me: bool,
}

#[derive(Debug)]
pub enum PubSubRequest {
    Subscribe(Space, Vec<Vec<u8>>),
    /// An empty list: from all.
    Unsubscribe(Space, Vec<Vec<u8>>),
    PatternSubscribe(Vec<Vec<u8>>),
    PatternUnsubscribe(Vec<Vec<u8>>),
    Publish(Space, Vec<u8>, Vec<u8>),
    Channels(Space, Option<Vec<u8>>),
    Subscribers(Space, Vec<Vec<u8>>),
    Patterns,
}

#[derive(Debug)]
pub enum ConfigRequest {
    Get(Vec<Vec<u8>>),
    Set(Vec<(Vec<u8>, Vec<u8>)>),
    Rewrite,
    ResetStat,
}

#[derive(Debug)]
pub enum CommandsRequest {
    All,
    Count,
    /// Empty: all.
    Info(Vec<Vec<u8>>),
    /// Empty: all.
    Docs(Vec<Vec<u8>>),
    List(CommandFilter),
    /// The words of a whole command.
    Keys {
        of: Vec<Vec<u8>>,
        with_flags: bool,
    },
}

/// COMMAND LIST FILTERBY.
#[derive(Debug)]
pub enum CommandFilter {
    None,
    Module,
    Category(Vec<u8>),
    Pattern(Vec<u8>),
}

/// SHUTDOWN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shutdown {
    pub save: bool,
    pub nosave: bool,
    /// Do not wait for replicas that lag behind.
    pub now: bool,
    /// End even if saving fails.
    pub force: bool,
    pub abort: bool,
}
