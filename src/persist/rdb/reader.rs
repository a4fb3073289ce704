//! A file as a whole, on the way in: an iterator over its records.

use std::io::Read;

use super::error::{Error, Problem, Result};
use super::pieces::Cutting;
use super::source::Source;
use super::{VERSION_READ, VERSION_VALKEY, decode, opcode, value_type};
use crate::base::time::UnixMs;
use crate::value::{Limits, Value};

/// The read buffer of a file or stream.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

/// The expiry in milliseconds that servers take for none.
const NEVER_MS: UnixMs = -1;

/// One record of a file.
#[derive(Debug)]
pub enum Record {
    /// A fact about the file or its writer (`redis-ver`, `repl-id`, ...). Unknown names are to be ignored.
    Aux {
        /// Not always text.
        name: Vec<u8>,
        /// Numbers are written as decimal text.
        value: Vec<u8>,
    },
    /// The entries that follow belong to this database. [`Entry::db`] repeats it.
    SelectDb(u32),
    /// How many keys, and how many of them with an expiry, the database holds: a hint.
    ResizeDb {
        /// All keys.
        keys: u64,
        /// Keys with an expiry.
        expires: u64,
    },
    /// The same for one slot, as servers of version 8 in cluster mode write it.
    SlotInfo {
        /// From 0 to 16,383.
        slot: u64,
        /// All keys of the slot.
        keys: u64,
        /// Keys of the slot with an expiry.
        expires: u64,
    },
    /// The text of a function library.
    Function(Vec<u8>),
    /// Data of a module outside the keyspace, which were skipped.
    ModuleAux {
        /// Name of the module, nine characters at most.
        module: String,
    },
    /// One key.
    Entry(Entry),
}

/// A key with its value.
#[derive(Debug)]
pub struct Entry {
    /// Number of the database.
    pub db: u32,
    /// The name of the key.
    pub key: Vec<u8>,
    /// Its value, decoded.
    pub value: Value,
    /// Milliseconds since 1970; `None`: the key stays.
    pub expire: Option<UnixMs>,
    /// Seconds since the key was last used, if the writer evicted by LRU.
    pub idle_s: Option<u64>,
    /// The logarithmic counter of uses, if the writer evicted by LFU.
    pub freq: Option<u8>,
}

/// Reads one RDB file. Yields records until the end mark, whose checksum is verified before the iterator
/// ends; after an error it ends, too.
pub struct Reader<R> {
    pub(super) source: Source<R>,
    limits: Limits,
    version: u32,
    pub(super) db: u32,
    /// It is a part of a file: entries, and no end mark.
    is_fragment: bool,
    pub(super) cutting: Cutting,
    state: State,
    /// Collections without elements that were skipped; old servers could write them.
    empty_keys_skipped: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Done,
    Failed,
}

/// What stands before a value and belongs to the key that follows.
#[derive(Default)]
pub(super) struct Attributes {
    expire: Option<UnixMs>,
    idle_s: Option<u64>,
    freq: Option<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads the header. `limits` decide which encodings the values get, not what the file had.
    pub fn open(inner: R, limits: Limits) -> Result<Self> {
        Self::with_checksum(inner, limits, true)
    }

    /// As [`open`](Self::open); with `verify` off (directive `rdbchecksum no`) the checksum is read but not compared.
    pub fn with_checksum(inner: R, limits: Limits, verify: bool) -> Result<Self> {
        let mut source = Source::new(inner, BUFFER_BYTES, verify);
        let version = header(&mut source)?;
        if version < 5 {
            // Files before Redis 2.6 end with the end mark.
            source.stop_checksum();
        }
        Ok(Self::new(source, limits, version, 0))
    }

    /// Reads entries of database `db` that begin at `offset` in their file, through a buffer of so many bytes.
    pub(super) fn of_part(input: R, buffer: usize, offset: u64, db: u32, limits: Limits) -> Self {
        let source = Source::new(input, buffer, false).at_offset(offset);
        Self { is_fragment: true, ..Self::new(source, limits, VERSION_READ, db) }
    }

    fn new(source: Source<R>, limits: Limits, version: u32, db: u32) -> Self {
        Self {
            source,
            limits,
            version,
            db,
            is_fragment: false,
            cutting: Cutting::default(),
            state: State::Reading,
            empty_keys_skipped: 0,
        }
    }

    /// What it reads from.
    pub fn input(&self) -> &R {
        self.source.inner()
    }

    /// Version of the format, from the file's first line.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Bytes of the file that were used so far, for progress.
    pub fn offset(&self) -> u64 {
        self.source.offset()
    }

    /// Keys that were left out because their collection had no elements.
    pub fn empty_keys_skipped(&self) -> u64 {
        self.empty_keys_skipped
    }

    /// The underlying reader, and what was read from it beyond the end mark (the commands that follow the RDB
    /// part of an append-only file).
    pub fn into_parts(self) -> (R, Vec<u8>) {
        self.source.into_parts()
    }

    /// What `code` says of the entry that follows. False: it is no such code.
    #[inline]
    pub(super) fn attribute(&mut self, code: u8, attributes: &mut Attributes) -> Result<bool> {
        match code {
            opcode::EXPIRE_MS => {
                let at = i64::from_le_bytes(self.source.array("an expiry in milliseconds")?);
                attributes.expire = (at != NEVER_MS).then_some(at);
            }
            opcode::EXPIRE_S => {
                let seconds = i32::from_le_bytes(self.source.array("an expiry in seconds")?);
                attributes.expire = Some(i64::from(seconds) * 1000);
            }
            opcode::FREQ => attributes.freq = Some(self.source.u8("a usage counter")?),
            opcode::IDLE => attributes.idle_s = Some(self.source.length("an idle time")?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The next record; `None` after the end mark.
    pub(super) fn record(&mut self) -> Result<Option<Record>> {
        let mut attributes = Attributes::default();
        loop {
            if self.is_fragment && self.source.at_end()? {
                return Ok(None);
            }
            let code = self.source.u8("an opcode or a value type")?;
            if self.attribute(code, &mut attributes)? {
                continue;
            }
            match code {
                opcode::EOF => {
                    self.verify_checksum()?;
                    return Ok(None);
                }
                code if !is_entry(code) => {
                    return self.other_record(code).map(Some);
                }
                _ => {
                    if let Some(entry) = self.entry(code, &attributes)? {
                        return Ok(Some(Record::Entry(entry)));
                    }
                    attributes = Attributes::default();
                }
            }
        }
    }

    /// A record that is not an entry. The caller has sorted out all other codes.
    fn other_record(&mut self, code: u8) -> Result<Record> {
        let source = &mut self.source;
        Ok(match code {
            opcode::AUX => Record::Aux {
                name: source.string("the name of an auxiliary field")?,
                value: source.string("the value of an auxiliary field")?,
            },
            opcode::SELECT_DB => {
                let db = source.length("a database number")?;
                let Ok(db) = u32::try_from(db) else {
                    return source.unexpected("a database number", db);
                };
                self.db = db;
                Record::SelectDb(db)
            }
            opcode::RESIZE_DB => Record::ResizeDb {
                keys: source.length("the number of keys")?,
                expires: source.length("the number of expiries")?,
            },
            opcode::SLOT_INFO => Record::SlotInfo {
                slot: source.length("a slot number")?,
                keys: source.length("the number of keys of a slot")?,
                expires: source.length("the number of expiries of a slot")?,
            },
            opcode::FUNCTION2 => Record::Function(source.string("a function library")?),
            opcode::MODULE_AUX => Record::ModuleAux { module: decode::skip_module_aux(source)? },
            opcode::FUNCTION_PRE_GA => {
                return source
                    .unexpected("an opcode or a value type", "a function of a release candidate of 7.0");
            }
            _ => return source.unexpected("an opcode or a value type", code),
        })
    }

    /// A key and its value; `None` for a key that is skipped because its value is empty.
    fn entry(&mut self, code: u8, attributes: &Attributes) -> Result<Option<Entry>> {
        if code > value_type::HASH_LISTPACK_EX {
            return Err(self.source.error(Problem::UnknownType(code)));
        }
        let key = self.source.string("a key")?;
        self.value_of(code, attributes, key)
    }

    /// The rest of an entry.
    pub(super) fn value_of(
        &mut self,
        code: u8,
        attributes: &Attributes,
        key: Vec<u8>,
    ) -> Result<Option<Entry>> {
        match decode::value(&mut self.source, code, &self.limits) {
            Ok(value) => Ok(Some(Entry {
                db: self.db,
                key,
                value,
                expire: attributes.expire,
                idle_s: attributes.idle_s,
                freq: attributes.freq,
            })),
            Err(Error { problem: Problem::Empty, .. }) => {
                self.empty_keys_skipped += 1;
                Ok(None)
            }
            Err(e) => Err(Error { key: Some(key), ..e }),
        }
    }

    fn verify_checksum(&mut self) -> Result<()> {
        if self.version < 5 {
            return Ok(());
        }
        let computed = self.source.checksum();
        let keeps_checksum = self.source.keeps_checksum();
        // What follows belongs to someone else.
        self.source.stop_checksum();
        let expected = u64::from_le_bytes(self.source.array("the checksum")?);
        if keeps_checksum && expected != 0 && expected != computed {
            return Err(self.source.error(Problem::Checksum { expected, computed }));
        }
        Ok(())
    }
}

/// Whether an entry begins with this code, after its attributes. Unknown ones count as value types.
pub(super) fn is_entry(code: u8) -> bool {
    !matches!(code, opcode::SLOT_INFO..=opcode::EOF)
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state != State::Reading {
            return None;
        }
        match self.record() {
            Ok(Some(record)) => Some(Ok(record)),
            Ok(None) => {
                self.state = State::Done;
                None
            }
            Err(e) => {
                self.state = State::Failed;
                Some(Err(e))
            }
        }
    }
}

/// `REDIS` and four digits, or `VALKEY` and three. Returns the version.
fn header<R: Read>(source: &mut Source<R>) -> Result<u32> {
    let head: [u8; 9] = source.array("the header of an RDB file")?;
    let digits = match &head {
        [b'R', b'E', b'D', b'I', b'S', digits @ ..] => &digits[..],
        [b'V', b'A', b'L', b'K', b'E', b'Y', digits @ ..] => &digits[..],
        _ => {
            return source.unexpected("the header of an RDB file", format_args!("'{}'", head.escape_ascii()));
        }
    };
    let version = std::str::from_utf8(digits).ok().and_then(|d| d.parse::<u32>().ok());
    match version {
        Some(v @ 1..=VERSION_READ) if head[0] == b'R' => Ok(v),
        Some(VERSION_VALKEY) => Ok(VERSION_VALKEY),
        Some(v) if v > 0 => Err(source.error(Problem::Version(v))),
        _ => source.unexpected("the version of an RDB file", format_args!("'{}'", digits.escape_ascii())),
    }
}
