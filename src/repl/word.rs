//! What servers say to each other over a link that is in step, among the commands of its stream.

/// A command that comes from our primary, as far as the link is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromPrimary {
    /// REPLCONF GETACK: it wants to know how far we are.
    AsksForOffset,
    /// Another REPLCONF.
    Configures,
    /// PING: a sign of life.
    SignOfLife,
    /// Data.
    Command,
}

impl FromPrimary {
    /// What these words are.
    pub fn of(words: &[&[u8]]) -> Self {
        match words {
            [name, what, ..] if is(name, "replconf") && is(what, "getack") => Self::AsksForOffset,
            [name, _, ..] if is(name, "replconf") => Self::Configures,
            [name, ..] if is(name, "ping") => Self::SignOfLife,
            _ => Self::Command,
        }
    }

    /// Whether it is for replicas of ours, too, and for no file.
    pub fn is_for_links(self) -> bool {
        self != Self::Command
    }
}

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

/// A request of a replica that is in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromReplica {
    /// REPLCONF ACK, and GETACK, which is ignored as in Redis.
    Reports,
    /// PSYNC or SYNC again, or nothing at all: it is being served.
    Repeats,
    /// What would be answered, and answers have no place in the stream.
    Command,
}

impl FromReplica {
    /// What these words are.
    pub fn of(words: &[&[u8]]) -> Self {
        match words {
            // Its options come in pairs; one that is not whole would be answered with an error.
            [name, what, rest @ ..]
                if is(name, "replconf") && rest.len() % 2 == 1 && (is(what, "ack") || is(what, "getack")) =>
            {
                Self::Reports
            }
            [name, ..] if !(is(name, "psync") || is(name, "sync")) => Self::Command,
            _ => Self::Repeats,
        }
    }
}
