//! What a command declares about itself. One row beside its handler; lookup, arity errors, locks,
//! routing, refusals, propagation and COMMAND all derive from it.
//! Source of flags, key specifications and tips: the documentation of COMMAND, "Command key
//! specifications" and "Command tips".
//!
//! [`flags`]: what a command may do, and how it is treated; [`keys`]: where its keys stand.

use smallvec::SmallVec;

use super::ctx::Handler;
use crate::acl::category::{self, Categories};

pub mod flags;
pub mod keys;

pub use keys::{Begin, Find, KeyPositions, KeySpec, Keyword, behind, counted, key, one, range};

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
