//! A client's mistakes, in Redis's words.

use std::borrow::Cow;

/// Why a command was refused. The text is the error reply, code included.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fail {
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    #[error("ERR syntax error")]
    Syntax,
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    #[error("ERR value is not a valid float")]
    NotFloat,
    #[error("ERR value is out of range, must be positive")]
    NotPositive,
    #[error("ERR no such key")]
    NoSuchKey,
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

impl Fail {
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
impl From<String> for Fail {
    fn from(text: String) -> Self {
        Self::owned(text)
    }
}
