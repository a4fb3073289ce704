//! What a handler is given, and what it gives back.

use std::time::Duration;

use super::client::Client;
use super::fail::Fail;
use super::request::Request;
use super::spec::Command;
use crate::base::rng::Rng;
use crate::keyspace::Db;
use crate::resp::Reply;
use crate::value::{Kind, Limits, Value, ValueRef};

pub type Handler = fn(&mut Ctx<'_, '_, '_>, &[&[u8]]) -> Result<Outcome, Fail>;

/// How a command ended.
#[derive(Debug)]
pub enum Outcome {
    /// The reply is written.
    Done,
    /// No reply yet: the client waits for one of these keys, or for the time to pass, and then the
    /// command runs again or answers with what [`Block::timeout_reply`] says.
    Block(Block),
    /// EXEC, DISCARD and their like concern the executor itself.
    Transaction(Transaction),
    /// The node is to do something that needs more than the data; it writes the reply.
    Node(Box<Request>),
}

/// What the executor is to do with the client's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction {
    Exec,
    Discard,
    Unwatch,
    /// RESET: forget the transaction, then ask the node for the rest.
    Reset,
}

/// What a blocked client waits for.
#[derive(Debug)]
pub struct Block {
    /// Argument positions of the keys.
    pub keys: Vec<usize>,
    /// `None`: for ever.
    pub timeout: Option<Duration>,
    pub timeout_reply: TimeoutReply,
}

/// What a client gets whose wait was in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutReply {
    Null,
    NullArray,
}

/// Everything a handler may touch.
pub struct Ctx<'c, 'l, 'k> {
    pub db: &'c mut Db<'l, 'k>,
    pub reply: &'c mut Reply,
    pub client: &'c mut Client,
    pub limits: &'c Limits,
    pub rng: &'c mut Rng,
    pub command: &'static Command,
    /// The node is part of a cluster.
    pub clustered: bool,
    /// Inside MULTI, or on behalf of the primary: blocking commands answer at once.
    pub may_block: bool,
}

impl std::fmt::Debug for Ctx<'_, '_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ctx").field("command", &self.command.name).finish_non_exhaustive()
    }
}

/// The result of a handler that has written its reply.
pub const DONE: Result<Outcome, Fail> = Ok(Outcome::Done);

/// The handler of a container. The executor answers for unknown subcommands before it comes here.
pub(super) fn container(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result<Outcome, Fail> {
    Err(Fail::Arity(ctx.command.name.to_owned()))
}

impl Ctx<'_, '_, '_> {
    /// The string under `key`.
    #[inline]
    pub fn string(&mut self, key: &[u8]) -> Result<Option<&[u8]>, Fail> {
        match self.db.read(key) {
            None => Ok(None),
            Some(ValueRef::String(s)) => Ok(Some(s)),
            Some(_) => Err(Fail::WrongType),
        }
    }

    /// Refuses a key that holds another type than `kind`. True when the key is there.
    pub fn expect_kind(&mut self, key: &[u8], kind: Kind) -> Result<bool, Fail> {
        match self.db.kind(key) {
            None => Ok(false),
            Some(k) if k == kind => Ok(true),
            Some(_) => Err(Fail::WrongType),
        }
    }

    /// Asks the node.
    pub fn node(request: Request) -> Result<Outcome, Fail> {
        Ok(Outcome::Node(Box::new(request)))
    }

    /// Puts other records in the log in place of the command itself: a handler that calls this
    /// answers for all that replicas must do.
    pub fn record<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        self.db.record(args);
    }
}

/// Typed access to collections: `reader` for a look, `writer` for a change, `create` when missing.
macro_rules! collection {
    ($kind:ident, $ty:ty, $reader:ident, $writer:ident, $create:ident) => {
        impl Ctx<'_, '_, '_> {
            /// The collection under `key`, counted as a read.
            #[inline]
            pub fn $reader(&mut self, key: &[u8]) -> Result<Option<&$ty>, Fail> {
                match self.db.read(key) {
                    None => Ok(None),
                    Some(ValueRef::$kind(v)) => Ok(Some(v)),
                    Some(_) => Err(Fail::WrongType),
                }
            }

            /// The collection under `key` for modification.
            #[inline]
            pub fn $writer(&mut self, key: &[u8]) -> Result<Option<&mut $ty>, Fail> {
                match self.db.write(key) {
                    None => Ok(None),
                    Some(Some(Value::$kind(v))) => Ok(Some(v)),
                    Some(_) => Err(Fail::WrongType),
                }
            }

            /// The collection under `key` for modification, made empty if it is not there. The
            /// caller must put something in.
            #[inline]
            pub fn $create(&mut self, key: &[u8]) -> Result<&mut $ty, Fail> {
                match self.db.write_or_insert(key, || Value::$kind(Box::default())) {
                    Some(Value::$kind(v)) => Ok(v),
                    _ => Err(Fail::WrongType),
                }
            }
        }
    };
}

collection!(List, crate::value::List, list, list_mut, list_or_new);
collection!(Set, crate::value::Set, set, set_mut, set_or_new);
collection!(Hash, crate::value::Hash, hash, hash_mut, hash_or_new);
collection!(SortedSet, crate::value::SortedSet, sorted_set, sorted_set_mut, sorted_set_or_new);
collection!(Stream, crate::value::Stream, stream, stream_mut, stream_or_new);
