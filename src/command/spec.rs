//! What a command declares about itself. One row beside its handler; lookup, arity errors, locks,
//! routing, refusals, propagation and COMMAND all derive from it.
//! Source of flags, key specifications and tips: the documentation of COMMAND, "Command key
//! specifications" and "Command tips".

use smallvec::SmallVec;

use super::ctx::Handler;
use crate::acl::category::{self, Categories};

/// Flags of a command, as COMMAND INFO lists them, and a few of our own behind [`flags::LOCK_ALL`].
pub mod flags {
    /// A set of flags.
    pub type Flags = u64;

    /// May change data: refused on read-only replicas and while writes are stopped.
    pub const WRITE: Flags = 1 << 0;
    /// Reads keys and changes none.
    pub const READONLY: Flags = 1 << 1;
    /// Refused when memory is over its limit.
    pub const DENYOOM: Flags = 1 << 2;
    /// For administrators: in the categories `@admin` and `@dangerous`, and hidden from MONITOR.
    pub const ADMIN: Flags = 1 << 3;
    /// Part of publish and subscribe: in the category `@pubsub`.
    pub const PUBSUB: Flags = 1 << 4;
    /// Refused inside scripts.
    pub const NOSCRIPT: Flags = 1 << 5;
    /// May make its client wait: in the category `@blocking`.
    pub const BLOCKING: Flags = 1 << 6;
    /// Allowed while data are loaded.
    pub const LOADING: Flags = 1 << 7;
    /// Allowed on a replica that has lost its primary.
    pub const STALE: Flags = 1 << 8;
    /// MONITOR does not show it.
    pub const SKIP_MONITOR: Flags = 1 << 9;
    /// The slow log does not record it.
    pub const SKIP_SLOWLOG: Flags = 1 << 10;
    /// Runs in a slot that is being imported, as if ASKING stood before it.
    pub const ASKING: Flags = 1 << 11;
    /// Takes no longer on more data than O(log N): in the category `@fast`, all others in `@slow`.
    pub const FAST: Flags = 1 << 12;
    /// Allowed before authentication.
    pub const NO_AUTH: Flags = 1 << 13;
    /// Tells replicas something although it changes no data. COMMAND does not show it.
    pub const MAY_REPLICATE: Flags = 1 << 14;
    /// Where its keys stand depends on its other arguments.
    pub const MOVABLE_KEYS: Flags = 1 << 15;
    /// Refused while a replica loads beside its old data; only shown, as we never do.
    pub const NO_ASYNC_LOADING: Flags = 1 << 16;
    /// Refused inside MULTI.
    pub const NO_MULTI: Flags = 1 << 17;
    /// Allowed while a script runs for too long.
    pub const ALLOW_BUSY: Flags = 1 << 18;
    /// Takes keys, but may be called without any.
    pub const NO_MANDATORY_KEYS: Flags = 1 << 19;
    /// Runs with every shard locked: it looks at the whole keyspace.
    pub const LOCK_ALL: Flags = 1 << 24;
    /// Goes from shard to shard and locks each for its own part only. In a transaction all are locked.
    pub const EACH_SHARD: Flags = 1 << 23;
    /// Allowed for a RESP2 client in subscribed mode.
    pub const IN_SUBSCRIBED: Flags = 1 << 25;
    /// Runs at once inside MULTI instead of being queued.
    pub const NOT_QUEUED: Flags = 1 << 26;

    /// What it answers are messages out of band, which CLIENT REPLY does not silence.
    pub const PUSHES: Flags = 1 << 27;

    /// Leaves what CLIENT CACHING said for the command that follows.
    pub const KEEPS_CACHING: Flags = 1 << 44;

    /// Reads the node's counters: what its thread has counted so far is added to them first.
    pub const READS_COUNTERS: Flags = 1 << 45;

    /// For servers among themselves and developers.
    pub const SYSTEM: Flags = 1 << 28;
    /// Leaves ASKING as it is, for the command or the transaction that follows.
    pub const KEEPS_ASKING: Flags = 1 << 29;
    /// Runs what MULTI has queued: the executor does it.
    pub const RUNS_QUEUE: Flags = 1 << 30;
    /// Refused as writes are while saving fails, so that a client that only looks whether the node is well hears of it.
    pub const TELLS_SAVE_FAILED: Flags = 1 << 31;
    /// Served wherever its keys are, also in a slot that is being imported.
    pub const ANYWHERE: Flags = 1 << 32;
    /// A client that waits in it is told when its key goes, or becomes another type.
    pub const WAITS_FOR_LOSS: Flags = 1 << 33;

    /// Reaches keys that its arguments do not name, by patterns: the executor asks it which locks it needs.
    pub const PATTERN_KEYS: Flags = 1 << 35;
    /// Runs a script: the executor does it, and decides which locks it takes.
    pub const RUNS_SCRIPT: Flags = 1 << 34;

    /// Names of the flags that COMMAND shows.
    pub const NAMES: &[(Flags, &str)] = &[
        (WRITE, "write"),
        (READONLY, "readonly"),
        (DENYOOM, "denyoom"),
        (ADMIN, "admin"),
        (PUBSUB, "pubsub"),
        (NOSCRIPT, "noscript"),
        (BLOCKING, "blocking"),
        (LOADING, "loading"),
        (STALE, "stale"),
        (SKIP_MONITOR, "skip_monitor"),
        (SKIP_SLOWLOG, "skip_slowlog"),
        (ASKING, "asking"),
        (FAST, "fast"),
        (NO_AUTH, "no_auth"),
        (MOVABLE_KEYS, "movablekeys"),
        (NO_ASYNC_LOADING, "no_async_loading"),
        (NO_MULTI, "no_multi"),
        (ALLOW_BUSY, "allow_busy"),
        (NO_MANDATORY_KEYS, "no_mandatory_keys"),
    ];
}

/// The family of a command, as COMMAND DOCS names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the groups as COMMAND DOCS names them")]
pub enum Group {
    Bitmap,
    Cluster,
    Connection,
    Generic,
    Geo,
    Hash,
    HyperLogLog,
    List,
    PubSub,
    Scripting,
    Sentinel,
    Server,
    Set,
    SortedSet,
    Stream,
    String,
    Transactions,
}

impl Group {
    /// As COMMAND DOCS spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bitmap => "bitmap",
            Self::Cluster => "cluster",
            Self::Connection => "connection",
            Self::Generic => "generic",
            Self::Geo => "geo",
            Self::Hash => "hash",
            Self::HyperLogLog => "hyperloglog",
            Self::List => "list",
            Self::PubSub => "pubsub",
            Self::Scripting => "scripting",
            Self::Sentinel => "sentinel",
            Self::Server => "server",
            Self::Set => "set",
            Self::SortedSet => "sorted-set",
            Self::Stream => "stream",
            Self::String => "string",
            Self::Transactions => "transactions",
        }
    }

    /// The ACL category of the family's commands.
    const fn category(self) -> Categories {
        match self {
            Self::Bitmap => category::BITMAP,
            // Of pub/sub commands those that the flag says.
            Self::Cluster | Self::Sentinel | Self::Server | Self::PubSub => 0,
            Self::Connection => category::CONNECTION,
            Self::Generic => category::KEYSPACE,
            Self::Geo => category::GEO,
            Self::Hash => category::HASH,
            Self::HyperLogLog => category::HYPERLOGLOG,
            Self::List => category::LIST,
            Self::Scripting => category::SCRIPTING,
            Self::Set => category::SET,
            Self::SortedSet => category::SORTED_SET,
            Self::Stream => category::STREAM,
            Self::String => category::STRING,
            Self::Transactions => category::TRANSACTION,
        }
    }
}

/// What a command does with the keys of a specification.
pub mod key {
    /// Reads the value, and neither changes nor deletes it.
    pub const RO: u16 = 1 << 0;
    /// Changes the value that is there.
    pub const RW: u16 = 1 << 1;
    /// Replaces the value whatever it was.
    pub const OW: u16 = 1 << 2;
    /// Deletes the key.
    pub const RM: u16 = 1 << 3;
    /// Tells something of the value's content, as a reply or as a copy.
    pub const ACCESS: u16 = 1 << 4;
    /// Changes content that is there already.
    pub const UPDATE: u16 = 1 << 5;
    /// Adds content, and changes or deletes none.
    pub const INSERT: u16 = 1 << 6;
    /// Removes content, or the whole value.
    pub const DELETE: u16 = 1 << 7;
    /// Only looks like a key: a channel, routed and locked by its slot.
    pub const NOT_KEY: u16 = 1 << 8;
    /// The specification does not find all keys: clients must ask COMMAND GETKEYS.
    pub const INCOMPLETE: u16 = 1 << 9;
    /// What is done with the key depends on the arguments.
    pub const VARIABLE_FLAGS: u16 = 1 << 10;

    /// Whether the value that is there is changed in place, and not deleted or replaced as a whole.
    pub const fn is_changed(flags: u16) -> bool {
        flags & (RM | OW) == 0
    }

    /// The words of COMMAND, in the order in which it shows them.
    pub const NAMES: &[(u16, &str)] = &[
        (RO, "RO"),
        (RW, "RW"),
        (OW, "OW"),
        (RM, "RM"),
        (ACCESS, "access"),
        (UPDATE, "update"),
        (INSERT, "insert"),
        (DELETE, "delete"),
        (NOT_KEY, "not_key"),
        (INCOMPLETE, "incomplete"),
        (VARIABLE_FLAGS, "variable_flags"),
    ];
}

/// Where the keys of a specification begin.
#[derive(Clone, Copy, Debug)]
pub enum Begin {
    /// At this argument.
    Index(usize),
    /// At this argument, unless the keyword is there (MIGRATE with KEYS). Shown as an index.
    IndexUnless(usize, Keyword),
    /// Behind this word.
    Keyword(Keyword),
    /// Behind this word wherever it stands; shown as a keyword, spelled so.
    EachKeyword(Keyword, &'static str),
    /// Behind the word, if it is there; where it stands more than once, the last one counts. Nothing is told of it.
    UnknownKeyword(Keyword),
    /// Keys that no argument names.
    Unknown,
}

/// A word in front of keys. It is found exactly where the handler finds it: the locks depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Keyword {
    /// Lower case.
    pub word: &'static str,
    /// Where COMMAND says that the search begins; from the end when negative.
    pub told_from: i32,
    /// Where it begins.
    pub from: usize,
    /// Options in front of it, with the number of words that belong to each: those may be anything.
    pub options: &'static [(&'static str, usize)],
}

impl Keyword {
    /// Where the word stands first.
    pub fn find(&self, args: &[&[u8]]) -> Option<usize> {
        self.places(args).next()
    }

    /// Where the word stands. Once it is one of the options, it may stand there again.
    fn places<'a>(&'a self, args: &'a [&'a [u8]]) -> impl Iterator<Item = usize> + 'a {
        let is = |at: usize, word: &str| args[at].eq_ignore_ascii_case(word.as_bytes());
        let mut at = self.from;
        std::iter::from_fn(move || {
            while at < args.len() {
                let here = at;
                at += 1 + self.options.iter().find(|(word, _)| is(at, word)).map_or(0, |(_, words)| *words);
                if is(here, self.word) {
                    return Some(here);
                }
            }
            None
        })
    }
}

/// Which arguments from there on are keys.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "each variant tells what its fields are")]
pub enum Find {
    /// Up to `last` (counted from the begin; negative: from the end), every `step`, and with
    /// `limit` above 1 only the first `1 / limit` of what is left.
    Range { last: i32, step: usize, limit: usize },
    /// As many as the argument `count` says, from `first` on, both counted from the begin.
    Count { count: usize, first: usize, step: usize },
}

/// One key specification.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// Bits of [`key`].
    pub flags: u16,
    /// Which argument the search starts from.
    pub begin: Begin,
    /// Which arguments from there on are keys.
    pub find: Find,
    /// What flags cannot say, for COMMAND INFO; empty for nothing.
    pub notes: &'static str,
}

/// Positions of key arguments.
pub type KeyPositions = SmallVec<[usize; 8]>;

impl KeySpec {
    /// Says what flags cannot.
    pub const fn notes(mut self, notes: &'static str) -> Self {
        self.notes = notes;
        self
    }

    /// Whether the keys and the words that belong to them, as many of each, do not match in number
    /// (`XREAD STREAMS a b 0`): the handler refuses it, and no node is asked for by keys.
    pub fn is_unbalanced(&self, args: &[&[u8]]) -> bool {
        match (self.begin, self.find) {
            (Begin::Keyword(keyword), Find::Range { limit, .. }) if limit > 1 => {
                keyword.find(args).is_some_and(|at| !(args.len() - at - 1).is_multiple_of(limit))
            }
            _ => false,
        }
    }

    /// Appends the positions of the keys in `args` (the command's name is argument 0). Stops where
    /// the arguments end. False when a key count is not a number, 0, or too large.
    pub fn positions(&self, args: &[&[u8]], out: &mut KeyPositions) -> bool {
        let begin = match self.begin {
            Begin::Index(at) => at,
            Begin::IndexUnless(_, keyword) if keyword.find(args).is_some() => return true,
            Begin::IndexUnless(at, _) => at,
            Begin::Keyword(keyword) => match keyword.find(args) {
                Some(at) => at + 1,
                None => return true,
            },
            Begin::EachKeyword(keyword, _) => {
                out.extend(keyword.places(args).map(|at| at + 1).filter(|at| *at < args.len()));
                return true;
            }
            Begin::UnknownKeyword(keyword) => {
                out.extend(keyword.places(args).map(|at| at + 1).filter(|at| *at < args.len()).last());
                return true;
            }
            Begin::Unknown => return true,
        };
        match self.find {
            Find::Range { last, step, limit } => {
                let mut end = if last >= 0 {
                    begin + last as usize
                } else {
                    args.len().saturating_sub(last.unsigned_abs() as usize)
                };
                if last < 0 && limit > 1 && args.len() > begin {
                    end = begin + (args.len() - begin) / limit - 1;
                }
                let mut at = begin;
                while at <= end && at < args.len() {
                    out.push(at);
                    at += step;
                }
                true
            }
            Find::Count { count, first, step } => {
                let Some(text) = args.get(begin + count) else { return true };
                let Some(n) = crate::base::num::parse_i64(text).and_then(|n| usize::try_from(n).ok()) else {
                    return false;
                };
                let first = begin + first;
                if n == 0 || n > args.len().saturating_sub(first).div_ceil(step) {
                    return false;
                }
                out.extend((0..n).map(|i| first + i * step));
                true
            }
        }
    }
}

/// A command or a subcommand.
#[derive(Debug)]
pub struct Command {
    /// Lower case. A subcommand has its own word only.
    pub name: &'static str,
    /// Words including the name (and the container's name); negative: at least.
    pub arity: i32,
    /// Bits of [`flags`].
    pub flags: flags::Flags,
    /// Most groups have an ACL category of their own.
    pub group: Group,
    /// Empty: it names no keys.
    pub keys: &'static [KeySpec],
    /// ACL categories that do not follow from flags and group.
    pub categories: Categories,
    /// Channels that a user must have rights to.
    pub channels: Channels,
    /// Hints for clients, in the words of "Command tips".
    pub tips: &'static [&'static str],
    /// Version of Redis that brought it.
    pub since: &'static str,
    /// One sentence for COMMAND DOCS, in our own words.
    pub summary: &'static str,
    /// Arguments, in the notation of [`super::syntax`].
    pub syntax: &'static str,
    /// Time that a call takes, in big O; empty: not told.
    pub complexity: &'static str,
    /// What changed for clients, with the version that changed it.
    pub history: &'static [(&'static str, &'static str)],
    /// Since when there is something better, and what.
    pub deprecated: Option<(&'static str, &'static str)>,
    /// The handler; a container's refuses, because its subcommands do the work.
    pub run: Handler,
    /// Empty: a command of its own.
    pub subcommands: &'static [Command],
    /// What the process must be for the command to exist.
    pub modes: &'static [Mode],
    /// Positions of arguments that logs and MONITOR do not tell: passwords.
    pub secrets: fn(&[&[u8]]) -> KeyPositions,
}

fn no_secrets(_: &[&[u8]]) -> KeyPositions {
    KeyPositions::new()
}

/// The positions of the words behind the option `word`, as many as belong to it, from argument `from` on.
pub fn behind_option(args: &[&[u8]], from: usize, word: &str, words: usize) -> KeyPositions {
    let found = args.iter().skip(from).position(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
    let first = found.map_or(args.len(), |at| from + at + 1);
    (first..args.len().min(first + words)).collect()
}

/// What a process is: a node with data, or a Sentinel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A node that keeps data, in a cluster or alone.
    #[default]
    Data,
    /// A process that watches others (`--sentinel`).
    Sentinel,
}

/// The modes of a command that both have.
pub const EVERYWHERE: &[Mode] = &[Mode::Data, Mode::Sentinel];

/// The modes of a row that names none. A subcommand then has those of its command.
const UNNAMED: &[Mode] = &[Mode::Data];

impl Command {
    /// A row that has what every row needs; what follows in the chain adds the rest.
    pub const fn new(name: &'static str, arity: i32, group: Group, run: Handler) -> Self {
        Self {
            name,
            arity,
            flags: 0,
            group,
            keys: &[],
            categories: 0,
            channels: Channels::None,
            tips: &[],
            since: "",
            summary: "",
            syntax: "",
            complexity: "",
            history: &[],
            deprecated: None,
            run,
            subcommands: &[],
            modes: UNNAMED,
            secrets: no_secrets,
        }
    }

    /// A command that is nothing without a subcommand.
    pub const fn container(name: &'static str, group: Group, subcommands: &'static [Command]) -> Self {
        let mut c = Self::new(name, -2, group, super::ctx::container);
        c.subcommands = subcommands;
        c
    }

    /// Subcommands beside what the command does by itself (COMMAND).
    pub const fn subcommands(mut self, subcommands: &'static [Command]) -> Self {
        self.subcommands = subcommands;
        self
    }

    /// Bits of [`flags`]; replaces what was said before.
    pub const fn flags(mut self, flags: flags::Flags) -> Self {
        self.flags = flags;
        self
    }

    /// Where its keys stand.
    pub const fn keys(mut self, keys: &'static [KeySpec]) -> Self {
        self.keys = keys;
        self
    }

    /// ACL categories beside those that flags and group give.
    pub const fn categories(mut self, categories: Categories) -> Self {
        self.categories = categories;
        self
    }

    /// Which arguments are channels that the user must have rights to.
    pub const fn channels(mut self, channels: Channels) -> Self {
        self.channels = channels;
        self
    }

    /// In the words of "Command tips".
    pub const fn tips(mut self, tips: &'static [&'static str]) -> Self {
        self.tips = tips;
        self
    }

    /// `since`, `summary` and `syntax`.
    pub const fn doc(mut self, since: &'static str, syntax: &'static str, summary: &'static str) -> Self {
        self.since = since;
        self.syntax = syntax;
        self.summary = summary;
        self
    }

    /// What changed for clients since the command came.
    pub const fn history(mut self, history: &'static [(&'static str, &'static str)]) -> Self {
        self.history = history;
        self
    }

    /// Which arguments must not be told.
    pub const fn secrets(mut self, secrets: fn(&[&[u8]]) -> KeyPositions) -> Self {
        self.secrets = secrets;
        self
    }

    /// Exists in these modes and no others.
    pub const fn modes(mut self, modes: &'static [Mode]) -> Self {
        self.modes = modes;
        self
    }

    /// Whether a process in `mode` has the command.
    pub fn exists_in(&self, mode: Mode) -> bool {
        self.modes.contains(&mode)
    }

    /// As [`exists_in`](Self::exists_in), of a subcommand whose command exists.
    pub fn exists_below(&self, mode: Mode) -> bool {
        self.modes == UNNAMED || self.exists_in(mode)
    }

    /// Version that deprecated it, and what to use instead.
    pub const fn deprecated(mut self, since: &'static str, instead: &'static str) -> Self {
        self.deprecated = Some((since, instead));
        self
    }

    /// In big O, as the documentation tells it.
    pub const fn complexity(mut self, complexity: &'static str) -> Self {
        self.complexity = complexity;
        self
    }

    /// Whether any of these flags is set.
    pub const fn has(&self, flag: flags::Flags) -> bool {
        self.flags & flag != 0
    }

    /// How many words a call has at least and at most, the name included.
    pub const fn words(&self) -> (usize, usize) {
        let declared = self.arity.unsigned_abs() as usize;
        (declared, if self.arity >= 0 { declared } else { usize::MAX })
    }

    /// Whether `words` arguments, the name included, are as many as declared.
    pub const fn accepts(&self, words: usize) -> bool {
        let (least, most) = self.words();
        least <= words && words <= most
    }

    /// Whether no call of it needs more shards than those of its keys.
    pub const fn keeps_to_keys(&self) -> bool {
        !self.has(flags::LOCK_ALL | flags::PATTERN_KEYS | flags::RUNS_SCRIPT)
    }

    /// The common case: exactly one key, and where.
    #[inline]
    pub const fn single_key(&self) -> Option<usize> {
        match self.keys {
            [KeySpec { begin: Begin::Index(at), find: Find::Range { last: 0, .. }, flags, .. }]
                if *flags & key::NOT_KEY == 0 =>
            {
                Some(*at)
            }
            _ => None,
        }
    }

    /// Whether its calls take about the same short time each: what Redis calls fast, and SET.
    pub fn is_brief(&self) -> bool {
        (self.has(flags::FAST) || self.complexity == "O(1)") && !self.has(flags::BLOCKING)
    }

    /// Whether it runs scripts, or might because they are queued, or is about them.
    pub fn is_scripted(&self) -> bool {
        self.group == Group::Scripting || self.has(flags::RUNS_SCRIPT | flags::RUNS_QUEUE)
    }

    /// Positions of all keys in `args`; `None` when they cannot be told because a count is wrong.
    pub fn key_positions(&self, args: &[&[u8]]) -> Option<KeyPositions> {
        let mut out = KeyPositions::new();
        for spec in self.keys.iter().filter(|s| s.flags & key::NOT_KEY == 0) {
            if !spec.positions(args, &mut out) {
                return None;
            }
        }
        Some(out)
    }

    /// Every key in `args`, with what this call does to it: bits of [`key`]. `None` as for
    /// [`key_positions`](Self::key_positions).
    pub fn key_uses(&self, args: &[&[u8]]) -> Option<SmallVec<[(usize, u16); 8]>> {
        let mut out = SmallVec::new();
        for spec in self.keys.iter().filter(|s| s.flags & key::NOT_KEY == 0) {
            let mut positions = KeyPositions::new();
            if !spec.positions(args, &mut positions) {
                return None;
            }
            let flags = self.flags_in_use(spec.flags, args);
            out.extend(positions.into_iter().map(|at| (at, flags)));
        }
        Some(out)
    }

    /// What a command whose flags vary does with these arguments.
    pub(super) fn flags_in_use(&self, declared: u16, args: &[&[u8]]) -> u16 {
        if declared & key::VARIABLE_FLAGS == 0 {
            return declared;
        }
        match self.name {
            "set" if args.iter().skip(3).any(|arg| arg.eq_ignore_ascii_case(b"get")) => {
                key::RW | key::ACCESS | key::UPDATE
            }
            "set" => key::OW | key::UPDATE,
            "bitfield" if only_gets(args.get(2..).unwrap_or_default()) => key::RO | key::ACCESS,
            _ => declared & !key::VARIABLE_FLAGS,
        }
    }

    /// The first key, last key and step that clients before key specifications used.
    pub fn legacy_range(&self) -> (i64, i64, i64) {
        match self.keys {
            [] => (0, 0, 0),
            specs => {
                let (mut first, mut last, mut step) = (0i64, 0i64, 0i64);
                for spec in specs {
                    let (Begin::Index(at) | Begin::IndexUnless(at, _), Find::Range { last: l, step: s, .. }) =
                        (spec.begin, spec.find)
                    else {
                        continue;
                    };
                    let end = if l >= 0 { at as i64 + i64::from(l) } else { i64::from(l) };
                    if step == 0 {
                        (first, last, step) = (at as i64, end, s as i64);
                    } else if last >= 0 && at as i64 == last + 1 {
                        last = end;
                    }
                }
                (first, last, step)
            }
        }
    }

    /// All ACL categories, those that follow from flags and group included.
    pub fn acl_categories(&self) -> Categories {
        let implied = [
            (flags::WRITE, category::WRITE),
            (flags::READONLY, category::READ),
            (flags::ADMIN, category::ADMIN | category::DANGEROUS),
            (flags::PUBSUB, category::PUBSUB),
            (flags::FAST, category::FAST),
            (flags::BLOCKING, category::BLOCKING),
        ];
        let mut set = self.categories;
        for (flag, categories) in implied {
            // What a script reads is its own affair.
            let told = flag != flags::READONLY || !matches!(self.group, Group::Scripting);
            if self.has(flag) && told {
                set |= categories;
            }
        }
        if !self.has(flags::FAST) {
            set |= category::SLOW;
        }
        // A container does nothing by itself.
        let is_container = !self.subcommands.is_empty() && self.flags == 0;
        // Generic commands that are about the connection (WAIT) or some types (SORT) rather than about keys.
        let of_others = self.categories & (category::CONNECTION | category::SORTED_SET) != 0;
        let not_of_keys = matches!(self.group, Group::Generic) && of_others;
        if !is_container && !not_of_keys {
            set |= self.group.category();
        }
        set
    }
}

/// The channels of a command's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// It has none, or is never refused because of them.
    None,
    /// The first argument is one.
    First,
    /// All arguments are.
    All,
    /// All arguments are patterns of some.
    Patterns,
}

/// One key at `at`.
pub const fn one(at: usize, flags: u16) -> KeySpec {
    KeySpec { flags, begin: Begin::Index(at), find: Find::Range { last: 0, step: 1, limit: 0 }, notes: "" }
}

/// Keys from `at` to `last` (negative: from the end), every `step`.
pub const fn range(at: usize, last: i32, step: usize, flags: u16) -> KeySpec {
    KeySpec { flags, begin: Begin::Index(at), find: Find::Range { last, step, limit: 0 }, notes: "" }
}

/// A count at `at`, and that many keys behind it.
pub const fn counted(at: usize, flags: u16) -> KeySpec {
    KeySpec { flags, begin: Begin::Index(at), find: Find::Count { count: 0, first: 1, step: 1 }, notes: "" }
}

/// Keys behind a word: half of what is left when `limit` is 2 (XREAD).
pub const fn behind(keyword: Keyword, limit: usize, flags: u16) -> KeySpec {
    KeySpec {
        flags,
        begin: Begin::Keyword(keyword),
        find: Find::Range { last: -1, step: 1, limit },
        notes: "",
    }
}

/// Whether the operations of BITFIELD change nothing. Those that are not whole count as changes.
fn only_gets(mut operations: &[&[u8]]) -> bool {
    while let Some((name, arguments)) = operations.split_first() {
        let count = match name.to_ascii_lowercase().as_slice() {
            b"get" => 2,
            b"overflow" => 1,
            _ => return false,
        };
        let Some(rest) = arguments.get(count..) else { return false };
        operations = rest;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(spec: KeySpec, line: &str) -> Vec<usize> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut out = KeyPositions::new();
        spec.positions(&args, &mut out);
        out.to_vec()
    }

    #[test]
    fn specifications_find_their_keys() {
        assert_eq!(keys(one(1, key::RO), "get a"), [1]);
        assert_eq!(keys(range(1, -1, 2, key::OW), "mset a 1 b 2"), [1, 3]);
        assert_eq!(keys(range(1, -2, 1, key::RW), "blpop a b 0"), [1, 2]);
        assert_eq!(keys(range(1, 1, 1, key::RW), "rename a b"), [1, 2]);
        assert_eq!(keys(counted(2, key::RO), "zunionstore d 2 a b weights 1 2"), [3, 4]);
        assert_eq!(keys(counted(1, key::RO), "zunion 5 a"), [] as [usize; 0]);
    }

    #[test]
    fn a_value_that_looks_like_the_keyword_is_passed_over() {
        let streams =
            Keyword { word: "streams", told_from: 4, from: 1, options: &[("group", 2), ("count", 1)] };
        let read = |line| keys(behind(streams, 2, key::RO), line);
        assert_eq!(read("xreadgroup count 2 group g c streams a b 0 0"), [7, 8]);
        assert_eq!(read("xreadgroup count 2 group streams streams streams a 0"), [7]);
        let word = Keyword { word: "keys", told_from: -2, from: 6, options: &[("auth", 1)] };
        let migrate = |line| {
            let first = KeySpec { begin: Begin::IndexUnless(3, word), ..one(3, key::RW) };
            [keys(first, line), keys(behind(word, 0, key::RW), line)].concat()
        };
        assert_eq!(migrate("migrate h p  0 5 copy keys a keys b"), [8, 9, 10]);
        assert_eq!(migrate("migrate h p  0 5 auth keys keys a"), [9]);
        assert_eq!(migrate("migrate h p  0 5 copy"), [3]);
    }
}
