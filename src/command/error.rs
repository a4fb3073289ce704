//! A client's mistakes, in Redis's words.

use std::borrow::Cow;

/// Why a command was refused. The text is the error reply, code included.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The key holds a value of another type than the command works on.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// Words that no form of the command knows.
    #[error("ERR syntax error")]
    Syntax,
    /// A number that is none, or that does not fit into 64 bits.
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    /// A number that is none; NaN counts as none.
    #[error("ERR value is not a valid float")]
    NotFloat,
    /// A negative number where only zero or more makes sense.
    #[error("ERR value is out of range, must be positive")]
    NotPositive,
    /// The command needs a key that is not there.
    #[error("ERR no such key")]
    NoSuchKey,
    /// A place that the list does not have.
    #[error("ERR index out of range")]
    IndexOutOfRange,
    /// The command, in lower case; `config|get` for a subcommand.
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(String),
    /// The command, in lower case.
    #[error("ERR invalid expire time in '{0}' command")]
    ExpireTime(String),
    /// A line of HTTP: somebody makes a browser speak to the node. Not worth an answer.
    #[error("ERR a request of another protocol")]
    OtherProtocol,
    /// Any other error reply, code included.
    #[error("{0}")]
    Text(Cow<'static, str>),
}

impl CommandError {
    /// An error of its own; `text` includes the code.
    pub const fn text(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// As [`text`](Self::text), for a text that was put together.
    pub fn owned(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

/// A text of the server's own machines, code included.
impl From<String> for CommandError {
    fn from(text: String) -> Self {
        Self::owned(text)
    }
}
