//! Values that are one of a few names.

/// A field that holds one of a few named values.
pub trait Choice {
    /// All names, in the order in which an error message lists them.
    fn names(&self) -> Vec<&'static str>;
    /// The name of the current value.
    fn name(&self) -> &'static str;
    /// Takes the value called `name`, in any case of letters; false if there is none.
    fn choose(&mut self, name: &[u8]) -> bool;
}

/// The names of an enum's values.
pub trait Named: Copy + PartialEq + 'static {
    /// Each name with its value, in the order in which they are listed.
    const NAMES: &'static [(&'static str, Self)];
}

impl<T: Named> Choice for T {
    fn names(&self) -> Vec<&'static str> {
        T::NAMES.iter().map(|(name, _)| *name).collect()
    }

    fn name(&self) -> &'static str {
        T::NAMES.iter().find(|(_, value)| value == self).map_or("", |(name, _)| name)
    }

    fn choose(&mut self, name: &[u8]) -> bool {
        let found = T::NAMES.iter().find(|(n, _)| name.eq_ignore_ascii_case(n.as_bytes()));
        if let Some((_, value)) = found {
            *self = *value;
        }
        found.is_some()
    }
}

/// An enum with the names of its values. The first value is the blank one, not the default of
/// a directive.
macro_rules! choice {
    ($(#[$doc:meta])* $type:ident { $($(#[$value_doc:meta])* $value:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
        pub enum $type {
            #[default]
            $(#[doc = concat!("`", $name, "` in the configuration.")] $(#[$value_doc])* $value,)*
        }

        impl Named for $type {
            const NAMES: &'static [(&'static str, Self)] = &[$(($name, Self::$value)),*];
        }
    };
}

choice! {
    /// Channels that a new user may use.
    PubsubDefault {
        AllChannels = "allchannels",
        ResetChannels = "resetchannels",
    }
}

choice! {
    /// When the append-only log is flushed to disk.
    AppendFsync {
        EverySecond = "everysec",
        Always = "always",
        Never = "no",
    }
}

choice! {
    /// What redirections and CLUSTER SLOTS name.
    EndpointType {
        Ip = "ip",
        Hostname = "hostname",
        Unknown = "unknown-endpoint",
    }
}

choice! {
    /// Who may do something dangerous.
    WhoMay {
        Nobody = "no",
        Everybody = "yes",
        Local = "local",
    }
}

choice! {
    /// Least level that is written to the log.
    LogLevel {
        Debug = "debug",
        Verbose = "verbose",
        Notice = "notice",
        Warning = "warning",
        Nothing = "nothing",
    }
}

choice! {
    /// Form of a log line.
    LogFormat {
        Redis = "redis",
        Json = "json",
        Logfmt = "logfmt",
    }
}

choice! {
    /// Which keys leave when memory is full.
    MaxmemoryPolicy {
        VolatileLru = "volatile-lru",
        VolatileLfu = "volatile-lfu",
        VolatileRandom = "volatile-random",
        VolatileTtl = "volatile-ttl",
        AllkeysLru = "allkeys-lru",
        AllkeysLfu = "allkeys-lfu",
        AllkeysRandom = "allkeys-random",
        NoEviction = "noeviction",
    }
}

choice! {
    /// How the kernel's out-of-memory score is adjusted.
    OomScoreAdj {
        No = "no",
        Yes = "yes",
        Relative = "relative",
        Absolute = "absolute",
    }
}

choice! {
    /// What an error while applying the replication stream does.
    PropagationError {
        Ignore = "ignore",
        Panic = "panic",
        PanicOnReplicas = "panic-on-replicas",
    }
}

choice! {
    /// When a replica loads a snapshot from the socket.
    DisklessLoad {
        Disabled = "disabled",
        OnEmptyDb = "on-empty-db",
        SwapDb = "swapdb",
    }
}

choice! {
    /// Whose payloads are checked deeply.
    SanitizeDump {
        No = "no",
        Yes = "yes",
        Clients = "clients",
    }
}

choice! {
    /// How the supervisor is told that the server is ready.
    Supervised {
        Upstart = "upstart",
        Systemd = "systemd",
        Auto = "auto",
        No = "no",
    }
}

choice! {
    /// Facility of the system log.
    SyslogFacility {
        User = "user",
        Local0 = "local0",
        Local1 = "local1",
        Local2 = "local2",
        Local3 = "local3",
        Local4 = "local4",
        Local5 = "local5",
        Local6 = "local6",
        Local7 = "local7",
    }
}

choice! {
    /// Whether clients must show a certificate.
    TlsAuthClients {
        No = "no",
        Yes = "yes",
        Optional = "optional",
    }
}

impl MaxmemoryPolicy {
    /// The policy that `self as u8` came from.
    pub fn from_number(number: u8) -> Self {
        Self::NAMES.get(usize::from(number)).map_or(Self::NoEviction, |(_, policy)| *policy)
    }

    /// Whether only keys with an expiry may leave.
    pub fn is_volatile(self) -> bool {
        matches!(self, Self::VolatileLru | Self::VolatileLfu | Self::VolatileRandom | Self::VolatileTtl)
    }

    /// Whether keys leave by how long they were not used.
    pub fn is_lru(self) -> bool {
        matches!(self, Self::VolatileLru | Self::AllkeysLru)
    }

    /// Whether keys leave by how often they were used.
    pub fn is_lfu(self) -> bool {
        matches!(self, Self::VolatileLfu | Self::AllkeysLfu)
    }
}
