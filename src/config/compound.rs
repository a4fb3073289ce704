//! Values of several words or with a syntax of their own.

use std::fmt;
use std::ops::Deref;

use super::directive::{memory, units};
use crate::base::num::{parse_f64, parse_i64};

/// A field whose value is written as several words.
pub trait Compound {
    /// Reads the words after the directive's name. `first`: no earlier line of the same source gave
    /// the directive. The error is the message for the user.
    fn read(&mut self, words: &[&[u8]], first: bool) -> Result<(), String>;
    /// Whether the value is one word, in which space is a character like others.
    fn is_one_word(&self) -> bool {
        false
    }
    /// The value as CONFIG GET shows it.
    fn show(&self) -> String;
    /// The lines, without the name, by which a file states the value.
    fn lines(&self) -> Vec<String>;
}

fn text(word: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(word).map_err(|_| "argument must be UTF-8 text".into())
}

/// A password. Its debug form hides it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(empty)" } else { "(hidden)" })
    }
}

impl Deref for Secret {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// A limit of `maxmemory-clients`: bytes, or a share of `maxmemory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryOrPercent {
    /// A number of bytes.
    Bytes(u64),
    /// Percent of `maxmemory`.
    Percent(u64),
}

impl Default for MemoryOrPercent {
    fn default() -> Self {
        Self::Bytes(0)
    }
}

impl MemoryOrPercent {
    pub(super) fn parse(word: &[u8]) -> Result<Self, String> {
        const FORM: &str = "argument must be a memory or percent value";
        match word {
            [digits @ .., b'%'] => {
                match parse_i64(digits).and_then(|percent| u64::try_from(percent).ok()).ok_or(FORM)? {
                    0 => Ok(Self::Bytes(0)),
                    percent @ 1..=100 => Ok(Self::Percent(percent)),
                    _ => Err("percentage argument must be less or equal to 100".into()),
                }
            }
            bytes => Ok(Self::Bytes(memory(bytes).ok_or(FORM)?)),
        }
    }

    /// The limit in bytes, 0 for none, given `maxmemory`.
    pub fn bytes(self, maxmemory: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (u128::from(maxmemory) * u128::from(percent) / 100) as u64,
        }
    }

    pub(super) fn line(self) -> String {
        match self {
            Self::Bytes(bytes) => units(i128::from(bytes)),
            percent @ Self::Percent(_) => percent.to_string(),
        }
    }
}

impl fmt::Display for MemoryOrPercent {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// `bind`: addresses to listen on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bind(pub Vec<String>);

/// Redis's limit of addresses.
const BIND_MAX: usize = 16;

impl Bind {
    /// The addresses, each with whether it may be missing on this machine (a leading `-`). `*` is
    /// every IPv4 address, `::*` every IPv6 address.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, bool)> {
        self.0.iter().map(|a| a.strip_prefix('-').map_or((a.as_str(), false), |rest| (rest, true)))
    }
}

impl Compound for Bind {
    fn read(&mut self, words: &[&[u8]], _first: bool) -> Result<(), String> {
        if words.len() > BIND_MAX {
            return Err("Too many bind addresses specified.".into());
        }
        // No word, or a single empty one: no TCP address at all.
        self.0 = match words {
            [b""] => vec![],
            words => words.iter().map(|w| text(w).map(str::to_owned)).collect::<Result<_, _>>()?,
        };
        Ok(())
    }

    fn show(&self) -> String {
        self.0.join(" ")
    }

    fn lines(&self) -> Vec<String> {
        vec![if self.0.is_empty() { "\"\"".into() } else { self.show() }]
    }
}

/// One save point: a snapshot is due when `changes` were made and `seconds` passed since the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavePoint {
    /// Seconds since the last save.
    pub seconds: u64,
    /// Changes of keys since the last save.
    pub changes: u64,
}

/// `save`: the save points; none turns automatic snapshots off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavePoints(pub Vec<SavePoint>);

impl Compound for SavePoints {
    fn read(&mut self, words: &[&[u8]], first: bool) -> Result<(), String> {
        if let [] | [b""] = words {
            self.0.clear();
            return Ok(());
        }
        let (pairs, odd) = words.as_chunks::<2>();
        let points = pairs
            .iter()
            .map(|[seconds, changes]| {
                let seconds = parse_i64(seconds).filter(|s| *s >= 1)?;
                let changes = parse_i64(changes).filter(|c| *c >= 0)?;
                Some(SavePoint { seconds: seconds as u64, changes: changes as u64 })
            })
            .collect::<Option<Vec<_>>>();
        match points {
            Some(points) if odd.is_empty() => {
                // The first line of a file replaces the defaults, the next ones add.
                if first {
                    self.0.clear();
                }
                self.0.extend(points);
                Ok(())
            }
            _ => Err("Invalid save parameters".into()),
        }
    }

    fn show(&self) -> String {
        let points: Vec<_> = self.0.iter().map(|p| format!("{} {}", p.seconds, p.changes)).collect();
        points.join(" ")
    }

    fn lines(&self) -> Vec<String> {
        match self.0.as_slice() {
            [] => vec!["\"\"".into()],
            points => points.iter().map(|p| format!("{} {}", p.seconds, p.changes)).collect(),
        }
    }
}

/// Limits of one class of clients; 0 means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimit {
    /// Bytes queued that close the client at once.
    pub hard_bytes: u64,
    /// Bytes queued that close the client when they stay exceeded for `soft_seconds`.
    pub soft_bytes: u64,
    /// Seconds that `soft_bytes` may be exceeded for.
    pub soft_seconds: u64,
}

/// `client-output-buffer-limit`, by class of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimits {
    /// Clients that are neither of the other two.
    pub normal: OutputLimit,
    /// Replicas, for what they are sent of the stream.
    pub replica: OutputLimit,
    /// Clients that listen to channels.
    pub pubsub: OutputLimit,
}

impl OutputLimits {
    fn class(&mut self, name: &[u8]) -> Option<&mut OutputLimit> {
        Some(match name.to_ascii_lowercase().as_slice() {
            b"normal" => &mut self.normal,
            b"replica" | b"slave" => &mut self.replica,
            b"pubsub" => &mut self.pubsub,
            _ => return None,
        })
    }
}

impl Compound for OutputLimits {
    fn read(&mut self, words: &[&[u8]], _first: bool) -> Result<(), String> {
        let (quads, odd) = words.as_chunks::<4>();
        // One empty word is what CONFIG SET gives: it names no class.
        if !odd.is_empty() && !matches!(words, [b""]) {
            return Err("Wrong number of arguments in buffer limit configuration.".into());
        }
        for [class, hard, soft, seconds] in quads {
            let class =
                self.class(class).ok_or("Invalid client class specified in buffer limit configuration.")?;
            let limit = (memory(hard), memory(soft), parse_i64(seconds).and_then(|s| u64::try_from(s).ok()));
            let (Some(hard_bytes), Some(soft_bytes), Some(soft_seconds)) = limit else {
                return Err(
                    "Error in hard, soft or soft_seconds setting in buffer limit configuration.".into()
                );
            };
            *class = OutputLimit { hard_bytes, soft_bytes, soft_seconds };
        }
        Ok(())
    }

    fn show(&self) -> String {
        let class =
            |name, l: OutputLimit| format!("{name} {} {} {}", l.hard_bytes, l.soft_bytes, l.soft_seconds);
        [class("normal", self.normal), class("slave", self.replica), class("pubsub", self.pubsub)].join(" ")
    }

    fn lines(&self) -> Vec<String> {
        let class = |name, l: OutputLimit| {
            let (hard, soft) = (units(i128::from(l.hard_bytes)), units(i128::from(l.soft_bytes)));
            format!("{name} {hard} {soft} {}", l.soft_seconds)
        };
        vec![class("normal", self.normal), class("replica", self.replica), class("pubsub", self.pubsub)]
    }
}

/// `oom-score-adj-values`: adjustments of a primary, of a replica, and of a background child (there
/// is none here).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomScoreAdjValues {
    /// While the node is a primary.
    pub primary: i32,
    /// While the node is a replica.
    pub replica: i32,
    /// For a child that saves. Kept for CONFIG; nothing forks here.
    pub background: i32,
}

impl Compound for OomScoreAdjValues {
    fn read(&mut self, words: &[&[u8]], _first: bool) -> Result<(), String> {
        let [primary, replica, background] = words else {
            return Err("wrong number of arguments".into());
        };
        let value = |word| parse_i64(word).filter(|v| (-2000..=2000).contains(v)).map(|v| v as i32);
        match (value(primary), value(replica), value(background)) {
            (Some(primary), Some(replica), Some(background)) => {
                *self = Self { primary, replica, background };
                Ok(())
            }
            _ => Err("Invalid oom-score-adj-values, elements must be between -2000 and 2000.".into()),
        }
    }

    fn show(&self) -> String {
        format!("{} {} {}", self.primary, self.replica, self.background)
    }

    fn lines(&self) -> Vec<String> {
        vec![self.show()]
    }
}

/// `notify-keyspace-events`: which events are published, as a set of letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceEvents(u16);

/// Letters in the order of their bits, which is the order in which they are shown. `A` stands for the
/// first ten, `d` (modules) included.
const EVENT_LETTERS: [u8; 14] = *b"g$lshzxetdnKEm";
const EVENTS_ALL: u16 = 0b11_1111_1111;

impl KeyspaceEvents {
    /// No class, nothing published.
    pub const NONE: Self = Self(0);
    /// Events of keys of any type, `g`.
    pub const GENERIC: Self = Self::of(b'g');
    /// Commands on strings, `$`.
    pub const STRING: Self = Self::of(b'$');
    /// Commands on lists, `l`.
    pub const LIST: Self = Self::of(b'l');
    /// Commands on sets, `s`.
    pub const SET: Self = Self::of(b's');
    /// Commands on hashes, `h`.
    pub const HASH: Self = Self::of(b'h');
    /// Commands on sorted sets, `z`.
    pub const SORTED_SET: Self = Self::of(b'z');
    /// Keys whose time has come, `x`.
    pub const EXPIRED: Self = Self::of(b'x');
    /// Keys that were evicted for memory, `e`.
    pub const EVICTED: Self = Self::of(b'e');
    /// Commands on streams, `t`.
    pub const STREAM: Self = Self::of(b't');
    /// New keys, `n`. Not in `A`.
    pub const NEW: Self = Self::of(b'n');
    /// Reads of keys that are not there, `m`. Not in `A`.
    pub const KEY_MISS: Self = Self::of(b'm');
    /// No class: events are published under the name of their key.
    pub const KEYSPACE: Self = Self::of(b'K');
    /// No class: keys are published under the name of their event.
    pub const KEYEVENT: Self = Self::of(b'E');

    const fn of(letter: u8) -> Self {
        let mut bit = 0;
        while EVENT_LETTERS[bit] != letter {
            bit += 1;
        }
        Self(1 << bit)
    }

    /// One bit for each class and form.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether one of `other` is among these.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl Compound for KeyspaceEvents {
    fn is_one_word(&self) -> bool {
        true
    }

    fn read(&mut self, words: &[&[u8]], _first: bool) -> Result<(), String> {
        let letters: &[u8] = match words {
            [letters] => letters,
            _ => return Err("wrong number of arguments".into()),
        };
        self.0 = 0;
        for letter in letters {
            self.0 |= match (letter, EVENT_LETTERS.iter().position(|l| l == letter)) {
                (b'A', _) => EVENTS_ALL,
                (_, Some(bit)) => 1 << bit,
                _ => return Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".into()),
            };
        }
        Ok(())
    }

    fn show(&self) -> String {
        let all = self.0 & EVENTS_ALL == EVENTS_ALL;
        let single = EVENT_LETTERS
            .iter()
            .enumerate()
            .filter(|(bit, _)| self.0 & 1 << bit != 0 && !(all && EVENTS_ALL & 1 << bit != 0));
        all.then_some('A').into_iter().chain(single.map(|(_, letter)| char::from(*letter))).collect()
    }

    fn lines(&self) -> Vec<String> {
        vec![format!("\"{}\"", self.show())]
    }
}

/// `latency-tracking-info-percentiles`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Percentiles(pub Vec<f64>);

impl Percentiles {
    /// A percentile as people write it: six decimals at most, without the zeros at the end.
    pub fn shown(percentile: f64) -> String {
        let text = format!("{percentile:.6}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

impl Compound for Percentiles {
    fn read(&mut self, words: &[&[u8]], _first: bool) -> Result<(), String> {
        let words = if let [b""] = words { &[] } else { words };
        let mut percentiles = Vec::with_capacity(words.len());
        for word in words {
            let p = parse_f64(word).ok_or("Invalid latency-tracking-info-percentiles parameters")?;
            if !(0.0..=100.0).contains(&p) {
                return Err(
                    "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]".into()
                );
            }
            percentiles.push(p);
        }
        self.0 = percentiles;
        Ok(())
    }

    fn show(&self) -> String {
        self.0.iter().map(|p| Self::shown(*p)).collect::<Vec<_>>().join(" ")
    }

    fn lines(&self) -> Vec<String> {
        vec![if self.0.is_empty() { "\"\"".into() } else { self.show() }]
    }
}

/// `replicaof`: the primary to follow, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrimaryAddress(pub Option<(String, u16)>);

impl Compound for PrimaryAddress {
    fn read(&mut self, words: &[&[u8]], _first: bool) -> Result<(), String> {
        let [host, port] = words else { return Err("wrong number of arguments".into()) };
        self.0 = if host.eq_ignore_ascii_case(b"no") && port.eq_ignore_ascii_case(b"one") {
            None
        } else {
            let port = parse_i64(port).and_then(|p| u16::try_from(p).ok()).ok_or("Invalid master port")?;
            Some((text(host)?.to_owned(), port))
        };
        Ok(())
    }

    fn show(&self) -> String {
        self.0.as_ref().map_or(String::new(), |(host, port)| format!("{host} {port}"))
    }

    fn lines(&self) -> Vec<String> {
        self.0.iter().map(|(host, port)| format!("{host} {port}")).collect()
    }
}

/// `shutdown-on-sigint` and `shutdown-on-sigterm`: as the options of SHUTDOWN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownOn {
    /// Save even without save points.
    pub save: bool,
    /// Do not save even with save points.
    pub nosave: bool,
    /// Do not wait for replicas.
    pub now: bool,
    /// End even if the save fails.
    pub force: bool,
}

impl Compound for ShutdownOn {
    fn read(&mut self, words: &[&[u8]], _first: bool) -> Result<(), String> {
        const ONE_OF: &str = "argument(s) must be one of the following: default, save, nosave, now, force";
        if words.is_empty() {
            return Err(ONE_OF.into());
        }
        let mut on = Self::default();
        for word in words {
            match word.to_ascii_lowercase().as_slice() {
                b"default" => {}
                b"save" => on.save = true,
                b"nosave" => on.nosave = true,
                b"now" => on.now = true,
                b"force" => on.force = true,
                _ => return Err(ONE_OF.into()),
            }
        }
        if on.save && on.nosave {
            return Err("shutdown options SAVE and NOSAVE can't be used simultaneously".into());
        }
        *self = on;
        Ok(())
    }

    fn show(&self) -> String {
        let parts = [(self.save, "save"), (self.nosave, "nosave"), (self.now, "now"), (self.force, "force")];
        let parts: Vec<_> = parts.into_iter().filter_map(|(on, name)| on.then_some(name)).collect();
        if parts.is_empty() { "default".into() } else { parts.join(" ") }
    }

    fn lines(&self) -> Vec<String> {
        vec![self.show()]
    }
}
