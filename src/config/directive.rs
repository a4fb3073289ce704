//! One directive: how its words are read, shown and written back.

use super::choice::Choice;
use super::compound::{Compound, MemoryOrPercent, Secret};
use super::grammar::quote;
use super::settings::Settings;
use crate::base::num::{parse_i64, parse_memory};

/// A row of the table of directives.
pub struct Directive {
    /// As files and CONFIG spell it, in lower case.
    pub name: &'static str,
    /// Older name that is accepted and shown as well.
    pub alias: Option<&'static str>,
    /// The default as a line of the file would state it.
    pub default: &'static str,
    /// How its value is written, and where it is kept.
    pub form: Form,
    /// Whether anything heeds it.
    pub meaning: Meaning,
    /// Cannot be changed by CONFIG SET.
    pub immutable: bool,
    /// Refused by CONFIG SET while data are loaded.
    pub not_while_loading: bool,
    /// Kept out of logs.
    pub sensitive: bool,
    /// Shown by CONFIG GET only when it is named in full.
    pub hidden: bool,
    /// Cannot be changed by CONFIG SET unless `enable-protected-configs` allows it.
    pub protected: bool,
    /// What the server updates when the value changes, in any order. If there is nothing to update, the code that
    /// depends on the directive reads it each time.
    pub moves: &'static [Effect],
    /// What must hold after the value was read, beyond its form; the error is the client's message.
    pub check: Option<fn(&Settings) -> Result<(), &'static str>>,
}

/// What a directive does in this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It does what its name says.
    Here,
    /// Accepted, shown and rewritten for the sake of existing files. There is nothing here for it to change.
    None,
}

/// A part of the server that keeps something made from directives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The password of the default user.
    Password,
    /// How much the log of refused actions keeps.
    AclLog,
    /// The process's limit of open files.
    OpenFiles,
    /// The working directory.
    Directory,
    /// The kernel's score for killing the process.
    OomScore,
    /// The order of SORT ALPHA.
    Locale,
    /// Certificates, and what is spoken under TLS.
    Tls,
    /// The sockets that clients connect to.
    Listeners,
    /// What ps shows of the process.
    Title,
    /// Those of clients that speak TLS.
    TlsListeners,
    /// Level, file, format and syslog of the log.
    Log,
    /// Whether a crash writes a report.
    CrashReport,
    /// The memory limit, and how uses of keys are counted for it.
    Memory,
    /// How long scripts run before others hear of it.
    Scripts,
    /// The classes of keyspace events.
    Events,
    /// The conditions that refuse commands.
    Gate,
    /// Whether a failed save refuses writes.
    SaveFailure,
    /// The settings of the cluster's state machine.
    Cluster,
    /// The thresholds of encodings, and the longest string.
    Encodings,
    /// Size and lifetime of the replication backlog.
    Backlog,
    /// Whether the append-only file is written.
    AppendOnly,
    /// When it is put on the disk.
    AppendFsync,
    /// From when on calls are shown to the slow log and the latency monitor, whether their times are kept, and
    /// how many keys are remembered for clients that track.
    Observers,
}

impl Effect {
    /// Each part once.
    pub const ALL: [Self; 23] = [
        Self::Password,
        Self::AclLog,
        Self::OpenFiles,
        Self::Directory,
        Self::OomScore,
        Self::Locale,
        Self::Tls,
        Self::Listeners,
        Self::Title,
        Self::TlsListeners,
        Self::Log,
        Self::CrashReport,
        Self::Memory,
        Self::Scripts,
        Self::Events,
        Self::Gate,
        Self::SaveFailure,
        Self::Cluster,
        Self::Encodings,
        Self::Backlog,
        Self::AppendOnly,
        Self::AppendFsync,
        Self::Observers,
    ];
}

/// Where a value of type `T` lies in the settings.
pub struct Place<T: ?Sized + 'static> {
    /// For showing and writing back.
    pub get: fn(&Settings) -> &T,
    /// For reading a new value.
    pub get_mut: fn(&mut Settings) -> &mut T,
}

/// The form of a directive's value. Ranges are inclusive.
pub enum Form {
    /// `yes` or `no`.
    Bool(Place<bool>),
    /// Least and greatest value, without a unit.
    Int(i128, i128, Place<dyn Number>),
    /// Bytes: a number with an optional unit.
    Memory(i128, i128, Place<dyn Number>),
    /// Bytes with an optional unit, or a number followed by `%`.
    MemoryOrPercent(Place<MemoryOrPercent>),
    /// A file mode.
    Octal(u32, u32, Place<u32>),
    /// One of a few names.
    Choice(Place<dyn Choice>),
    /// One word, taken as it is.
    Text(Place<String>),
    /// A password.
    Secret(Place<Secret>),
    /// A value of several words or with a syntax of its own.
    Compound(Place<dyn Compound>),
}

/// An integer field of any width. The range of its row fits its type.
pub trait Number {
    /// The number, whatever the width of the field.
    fn value(&self) -> i128;
    /// Stores a number that is in the range of the row.
    fn set(&mut self, value: i128);
}

macro_rules! number {
    ($($t:ty)*) => {$(
        impl Number for $t {
            fn value(&self) -> i128 {
                i128::from(*self)
            }
            fn set(&mut self, value: i128) {
                *self = Self::try_from(value).expect("the row's range fits the field");
            }
        }
    )*};
}
number!(u16 u32 u64 i32 i64);

impl Directive {
    pub(super) const fn new(name: &'static str, default: &'static str, form: Form, meaning: Meaning) -> Self {
        Self {
            name,
            alias: None,
            default,
            form,
            meaning,
            immutable: false,
            not_while_loading: false,
            sensitive: false,
            hidden: false,
            protected: false,
            moves: &[],
            check: None,
        }
    }

    pub(super) const fn alias(mut self, alias: &'static str) -> Self {
        self.alias = Some(alias);
        self
    }

    pub(super) const fn immutable(mut self) -> Self {
        self.immutable = true;
        self
    }

    pub(super) const fn not_while_loading(mut self) -> Self {
        self.not_while_loading = true;
        self
    }

    pub(super) const fn sensitive(mut self) -> Self {
        self.sensitive = true;
        self
    }

    pub(super) const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    pub(super) const fn protected(mut self) -> Self {
        self.protected = true;
        self
    }

    pub(super) const fn moves(mut self, moves: &'static [Effect]) -> Self {
        self.moves = moves;
        self
    }

    pub(super) const fn check(mut self, check: fn(&Settings) -> Result<(), &'static str>) -> Self {
        self.check = Some(check);
        self
    }

    /// Whether the value may have several words.
    pub fn takes_several(&self) -> bool {
        matches!(self.form, Form::Compound(_))
    }

    /// Reads the words after the name into the settings. `first`: no earlier line of the same source
    /// gave this directive, so a list starts anew. Settings are undefined after an error.
    pub fn read(&self, settings: &mut Settings, words: &[&[u8]], first: bool) -> Result<(), String> {
        if let Form::Compound(place) = &self.form {
            // One word may hold the whole value: save "60 100".
            let split: Vec<&[u8]>;
            let words = match words {
                [one] if !one.is_empty() && !(place.get_mut)(settings).is_one_word() => {
                    split = one.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()).collect();
                    &split
                }
                several => several,
            };
            (place.get_mut)(settings).read(words, first)?;
        } else {
            let [word] = words else { return Err("wrong number of arguments".into()) };
            self.read_word(settings, word)?;
        }
        settings.settle();
        self.check.map_or(Ok(()), |check| check(settings)).map_err(str::to_owned)
    }

    fn read_word(&self, settings: &mut Settings, word: &[u8]) -> Result<(), String> {
        match &self.form {
            Form::Bool(place) => {
                *(place.get_mut)(settings) = match () {
                    () if word.eq_ignore_ascii_case(b"yes") => true,
                    () if word.eq_ignore_ascii_case(b"no") => false,
                    () => return Err("argument must be 'yes' or 'no'".into()),
                };
            }
            Form::Int(low, high, place) => {
                let value = parse_i64(word).ok_or("argument couldn't be parsed into an integer")?;
                (place.get_mut)(settings).set(in_range(i128::from(value), *low, *high)?);
            }
            Form::Memory(low, high, place) => {
                let value = memory(word).ok_or("argument must be a memory value")?;
                (place.get_mut)(settings).set(in_range(i128::from(value), *low, *high)?);
            }
            Form::MemoryOrPercent(place) => *(place.get_mut)(settings) = MemoryOrPercent::parse(word)?,
            Form::Octal(low, high, place) => {
                let value = std::str::from_utf8(word)
                    .ok()
                    .and_then(|text| i64::from_str_radix(text, 8).ok())
                    .ok_or("argument couldn't be parsed as an octal number")?;
                match u32::try_from(value).ok().filter(|mode| (low..=high).contains(&mode)) {
                    Some(mode) => *(place.get_mut)(settings) = mode,
                    None => return Err(format!("argument must be between {low:o} and {high:o} inclusive")),
                }
            }
            Form::Choice(place) => {
                let choice = (place.get_mut)(settings);
                if !choice.choose(word) {
                    let names = choice.names().join(", ");
                    return Err(format!("argument(s) must be one of the following: {names}"));
                }
            }
            Form::Text(place) => {
                let text = std::str::from_utf8(word).map_err(|_| "argument must be UTF-8 text")?;
                if text.contains('\0') {
                    return Err("argument must not contain a zero byte".into());
                }
                text.clone_into((place.get_mut)(settings));
            }
            Form::Secret(place) => *(place.get_mut)(settings) = Secret(word.to_vec()),
            Form::Compound(_) => unreachable!("several words are read by the caller"),
        }
        Ok(())
    }

    /// The value as CONFIG GET shows it.
    pub fn show(&self, settings: &Settings) -> Vec<u8> {
        match &self.form {
            Form::Bool(place) => yes_no(*(place.get)(settings)).into(),
            Form::Int(_, _, place) | Form::Memory(_, _, place) => {
                (place.get)(settings).value().to_string().into()
            }
            Form::MemoryOrPercent(place) => (place.get)(settings).to_string().into(),
            Form::Octal(_, _, place) => format!("{:o}", (place.get)(settings)).into(),
            Form::Choice(place) => (place.get)(settings).name().into(),
            Form::Text(place) => (place.get)(settings).clone().into(),
            Form::Secret(place) => (place.get)(settings).0.clone(),
            Form::Compound(place) => (place.get)(settings).show().into(),
        }
    }

    /// The lines, without the name, by which a file states the value; none when it is unset.
    pub fn lines(&self, settings: &Settings) -> Vec<Vec<u8>> {
        match &self.form {
            Form::Memory(_, _, place) => vec![units((place.get)(settings).value()).into()],
            Form::MemoryOrPercent(place) => vec![(place.get)(settings).line().into()],
            Form::Text(_) | Form::Secret(_) => {
                let value = self.show(settings);
                // An empty default means that the directive is unset.
                if value.is_empty() && self.default.is_empty() { vec![] } else { vec![quote(&value)] }
            }
            Form::Compound(place) => (place.get)(settings).lines().into_iter().map(Into::into).collect(),
            _ => vec![self.show(settings)],
        }
    }
}

fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn in_range(value: i128, low: i128, high: i128) -> Result<i128, String> {
    if (low..=high).contains(&value) {
        Ok(value)
    } else {
        Err(format!("argument must be between {low} and {high} inclusive"))
    }
}

/// Bytes from text.
pub(super) fn memory(word: &[u8]) -> Option<u64> {
    parse_memory(std::str::from_utf8(word).ok()?)
}

/// Bytes as a file states them: in the largest unit that divides them.
pub(super) fn units(bytes: i128) -> String {
    for (unit, size) in [("gb", 1 << 30), ("mb", 1 << 20), ("kb", 1 << 10)] {
        if bytes != 0 && bytes % size == 0 {
            return format!("{}{unit}", bytes / size);
        }
    }
    bytes.to_string()
}
