//! Lines of the log that a state machine asks for: it has no log of its own.

/// How loud a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the words of the directive `loglevel`")]
pub enum Level {
    Debug,
    Verbose,
    Notice,
    Warning,
}
