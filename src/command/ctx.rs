//! What a handler is given, and what it gives back.

use std::any::Any;
use std::time::Duration;

use super::client::Client;
use super::error::CommandError;
use super::rights::Errand;
use super::spec::Command;
use super::table::CommandTable;
use crate::base::rng::Rng;
use crate::keyspace::board::Busy;
use crate::keyspace::{Db, Event, event};
use crate::resp::Reply;
use crate::value::{Hash, Kind, Limits, List, Set, SortedSet, Stream, Value, ValueMut, ValueRef};

/// What runs a command: its context and all words, the name included.
pub type Handler = fn(&mut Ctx<'_, '_, '_>, &[&[u8]]) -> Result<Outcome, CommandError>;

/// How a command ended.
#[derive(Debug)]
pub enum Outcome {
    /// The reply is written.
    Done,
    /// No reply yet: the client waits for one of these keys, or for the time to pass, and then the
    /// command runs again or answers with what [`Block::timeout_reply`] says.
    Block(Box<Block>),
    /// The executor runs a script that the arguments tell.
    Script,
    /// EXEC, DISCARD and their like concern the executor itself.
    Transaction(Transaction),
    /// The command came to a shard that is held for long. It has changed nothing, and is to be run again from its
    /// beginning when the shard is free.
    Aside(Busy),
    /// The connection waits for something that the node knows (WAIT, SHUTDOWN): nothing more of it is run
    /// until the node has answered.
    Suspended,
    /// The connection leaves its worker and becomes a replication link.
    Detached,
}

/// What the executor is to do with the client's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction {
    /// Run what was queued, then forget it and what is watched.
    Exec,
    /// Forget what was queued and what is watched.
    Discard,
    /// Forget what is watched.
    Unwatch,
    /// RESET, which forgets the transaction, too.
    Reset,
}

/// What a blocked client waits for.
#[derive(Debug)]
pub struct Block {
    /// Argument positions of the keys.
    pub keys: Vec<usize>,
    /// `None`: for ever.
    pub timeout: Option<Duration>,
    /// What the client gets when `timeout` is over.
    pub timeout_reply: TimeoutReply,
    /// The command to run when a key has changed, if it is not the one that blocked; its keys stand
    /// at the same positions.
    pub argv: Option<Vec<Vec<u8>>>,
    /// For each key the command for this key alone, which is run if the locks of the other keys are not held; empty
    /// for a command that needs all its keys.
    pub alone: Vec<Vec<Vec<u8>>>,
    /// The client is told when a key goes, too.
    pub for_loss: bool,
}

/// What a client gets whose wait was in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutReply {
    /// A missing value (`$-1`; `_` in RESP3).
    Null,
    /// A missing list (`*-1`; `_` in RESP3).
    NullArray,
}

/// Everything a handler may touch.
pub struct Ctx<'c, 'l, 'k> {
    /// The client's database, under the locks of the command's keys.
    pub db: &'c mut Db<'l, 'k>,
    /// Where the answer is written, in the client's version of RESP.
    pub reply: &'c mut Reply,
    /// Whose command it is; for the primary's stream and files a client of the node's own.
    pub client: &'c mut Client,
    /// The directives that shape values, as they were when the command began.
    pub limits: &'c Limits,
    /// For what is chosen at random; each thread has its own, seeded at the start.
    pub rng: &'c mut Rng,
    /// The row that runs; of a container's subcommand its own.
    pub command: &'static Command,
    /// Its place in the table of commands.
    pub id: usize,
    /// Every command, under the names that it has here.
    pub commands: &'c CommandTable,
    /// The node is part of a cluster.
    pub clustered: bool,
    /// Inside MULTI, or on behalf of the primary: blocking commands answer at once.
    pub may_block: bool,
    /// The server's own state, for commands that it registered: those know its type.
    pub node: &'c (dyn Any + Send),
}

impl std::fmt::Debug for Ctx<'_, '_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ctx").field("command", &self.command.name).finish_non_exhaustive()
    }
}

/// The result of a handler that has written its reply.
pub const DONE: Result<Outcome, CommandError> = Ok(Outcome::Done);

/// The handler of a container. The executor answers for unknown subcommands before it comes here.
pub(super) fn container(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result<Outcome, CommandError> {
    Err(CommandError::Arity(ctx.command.name.to_owned()))
}

impl Ctx<'_, '_, '_> {
    /// Whether the user may read keys that no argument of this call names.
    pub fn reads_any_key(&mut self, args: &[&[u8]]) -> bool {
        let errand = Errand { id: self.id, entry: self.commands.get(self.id), args };
        self.client.user().is_none_or(|user| user.reads_any_key(&errand))
    }

    /// The string under `key`.
    #[inline]
    pub fn string(&mut self, key: &[u8]) -> Result<Option<&[u8]>, CommandError> {
        match self.db.read(key) {
            None => Ok(None),
            Some(ValueRef::String(s)) => Ok(Some(s)),
            Some(_) => Err(CommandError::WrongType),
        }
    }

    /// Puts other records in the log in place of the command itself. A handler that calls this must record everything
    /// that replicas have to do.
    pub fn record<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        self.db.record(args);
    }

    /// Waits for one of the keys at these argument positions, or answers with `in_vain` at once where
    /// waiting is not possible. A wait that ends in vain is answered with a null array throughout.
    /// `alone` gives the command that concerns one key alone (see [`Block::alone`]).
    pub fn wait<'a>(
        &mut self,
        keys: std::ops::Range<usize>,
        timeout: Option<Duration>,
        in_vain: TimeoutReply,
        alone: impl Fn(usize) -> Vec<&'a [u8]>,
    ) -> Result<Outcome, CommandError> {
        if self.may_block {
            let own = |at| alone(at).iter().map(|arg| arg.to_vec()).collect::<Vec<_>>();
            let alone = if keys.len() > 1 { keys.clone().map(own).collect() } else { Vec::new() };
            let timeout_reply = TimeoutReply::NullArray;
            let keys = keys.collect();
            return Ok(Outcome::Block(Box::new(Block {
                keys,
                timeout,
                timeout_reply,
                argv: None,
                alone,
                for_loss: false,
            })));
        }
        match in_vain {
            TimeoutReply::Null => self.reply.null(),
            TimeoutReply::NullArray => self.reply.null_array(),
        }
        DONE
    }

    /// Ends a command that took `removed` elements out of the collection under `key`, which is `empty` now
    /// or not.
    pub fn reply_removed(
        &mut self,
        key: &[u8],
        removed: usize,
        empty: bool,
        event: Event,
    ) -> Result<Outcome, CommandError> {
        if removed > 0 {
            self.remove_if_empty(key, empty, event);
            self.db.count_elements(removed);
        }
        self.reply.int(removed as i64);
        DONE
    }

    /// Puts a result under `key` in place of what it held; `None`, a result without elements, deletes the key.
    pub fn store(&mut self, key: &[u8], result: Option<Value>, event: Event) {
        if let Some(value) = result {
            self.db.insert(key, value, None);
            self.db.changed(key, event);
        } else if self.db.remove_unseen(key) {
            self.db.changed(key, event::DEL);
        }
    }

    /// After a change of the collection under `key`: an empty one goes, as no key holds nothing.
    #[inline]
    pub fn remove_if_empty(&mut self, key: &[u8], empty: bool, event: Event) {
        self.db.changed(key, event);
        if empty {
            self.db.remove(key);
            self.db.notify(key, event::DEL);
        }
    }
}

/// Typed access to the collections of a database: to read one, to change one, to change one that is created when it
/// is missing. These are methods of the database and not of [`Ctx`], so that the reply can be written while a
/// collection is borrowed.
pub trait Collections {
    /// Refuses a key that holds another type than `kind`. True when the key is there.
    fn expect_kind(&mut self, key: &[u8], kind: Kind) -> Result<bool, CommandError>;

    /// The list at a key; `None` when there is none. The same for the other types below.
    fn list(&mut self, key: &[u8]) -> Result<Option<&List>, CommandError>;
    /// The same, to be changed in place. A command that empties it deletes the key. The same holds below.
    fn list_mut(&mut self, key: &[u8]) -> Result<Option<&mut List>, CommandError>;
    /// Makes an empty list when the key is missing; the caller must put something in. The same for the others.
    fn list_or_new(&mut self, key: &[u8]) -> Result<&mut List, CommandError>;

    /// As [`list`](Self::list).
    fn set(&mut self, key: &[u8]) -> Result<Option<&Set>, CommandError>;
    /// As [`list_mut`](Self::list_mut).
    fn set_mut(&mut self, key: &[u8]) -> Result<Option<&mut Set>, CommandError>;
    /// As [`list_or_new`](Self::list_or_new).
    fn set_or_new(&mut self, key: &[u8]) -> Result<&mut Set, CommandError>;

    /// As [`list`](Self::list).
    fn hash(&mut self, key: &[u8]) -> Result<Option<&Hash>, CommandError>;
    /// As [`list_mut`](Self::list_mut).
    fn hash_mut(&mut self, key: &[u8]) -> Result<Option<&mut Hash>, CommandError>;
    /// As [`list_or_new`](Self::list_or_new).
    fn hash_or_new(&mut self, key: &[u8]) -> Result<&mut Hash, CommandError>;

    /// As [`list`](Self::list).
    fn sorted_set(&mut self, key: &[u8]) -> Result<Option<&SortedSet>, CommandError>;
    /// As [`list_mut`](Self::list_mut).
    fn sorted_set_mut(&mut self, key: &[u8]) -> Result<Option<&mut SortedSet>, CommandError>;
    /// As [`list_or_new`](Self::list_or_new).
    fn sorted_set_or_new(&mut self, key: &[u8]) -> Result<&mut SortedSet, CommandError>;

    /// As [`list`](Self::list).
    fn stream(&mut self, key: &[u8]) -> Result<Option<&Stream>, CommandError>;
    /// As [`list_mut`](Self::list_mut).
    fn stream_mut(&mut self, key: &[u8]) -> Result<Option<&mut Stream>, CommandError>;
    /// As [`list_or_new`](Self::list_or_new).
    fn stream_or_new(&mut self, key: &[u8]) -> Result<&mut Stream, CommandError>;
}

macro_rules! collection {
    ($kind:ident, $reader:ident, $writer:ident, $create:ident) => {
        #[inline]
        fn $reader(&mut self, key: &[u8]) -> Result<Option<&$kind>, CommandError> {
            match self.read(key) {
                None => Ok(None),
                Some(ValueRef::$kind(v)) => Ok(Some(v)),
                Some(_) => Err(CommandError::WrongType),
            }
        }

        #[inline]
        fn $writer(&mut self, key: &[u8]) -> Result<Option<&mut $kind>, CommandError> {
            match self.write(key) {
                None => Ok(None),
                Some(Some(ValueMut::$kind(v))) => Ok(Some(v)),
                Some(_) => Err(CommandError::WrongType),
            }
        }

        #[inline]
        fn $create(&mut self, key: &[u8]) -> Result<&mut $kind, CommandError> {
            match self.write_or_insert(key, || Value::$kind(Default::default())) {
                Some(ValueMut::$kind(v)) => Ok(v),
                _ => Err(CommandError::WrongType),
            }
        }
    };
}

impl Collections for Db<'_, '_> {
    fn expect_kind(&mut self, key: &[u8], kind: Kind) -> Result<bool, CommandError> {
        self.inspect(key, |value| match value.map(|value| value.kind()) {
            None => Ok(false),
            Some(k) if k == kind => Ok(true),
            Some(_) => Err(CommandError::WrongType),
        })
    }

    collection!(List, list, list_mut, list_or_new);
    collection!(Set, set, set_mut, set_or_new);
    collection!(Hash, hash, hash_mut, hash_or_new);
    collection!(SortedSet, sorted_set, sorted_set_mut, sorted_set_or_new);
    collection!(Stream, stream, stream_mut, stream_or_new);
}
