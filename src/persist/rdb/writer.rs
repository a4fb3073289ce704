//! A file as a whole, on the way out: header, auxiliary fields, databases, end mark and checksum.
//!
//! The bytes of entries come from [`encode_entry`](super::encode_entry), which any thread may run into a buffer
//! of its own; the writer puts the blocks one after the other and keeps the checksum.

use std::io::{self, Write};

use super::checksum::Crc64;
use super::{opcode, sink};
use crate::base::time::UnixMs;

/// Writes one RDB file to a sink that stays the caller's.
///
/// The order of calls is the order in the file: [`preamble`](Self::preamble), functions, then for every
/// database [`database`](Self::database) and its [`entries`](Self::entries), and [`finish`](Self::finish).
pub struct Writer<W> {
    sink: W,
    checksum: Option<Crc64>,
    written: u64,
    /// Head fields are put together here, so that the sink sees few writes.
    scratch: Vec<u8>,
}

/// What stands before the data.
#[derive(Clone, Debug)]
pub struct Preamble<'a> {
    /// The lowest version that knows everything in the file: [`VERSION_WRITTEN`](super::VERSION_WRITTEN) or
    /// [`VERSION_WITH_TIMES`](super::VERSION_WITH_TIMES).
    pub version: u32,
    /// The compatibility version, such as `7.4.1`.
    pub redis_version: &'a str,
    /// When the file was begun, in milliseconds since 1970.
    pub created: UnixMs,
    /// Bytes of memory in use.
    pub used_memory: u64,
    /// Where the replication stream stands at the point in time that the file shows.
    pub replication: Option<ReplicationInfo<'a>>,
    /// Whether the file is the base of an append-only log.
    pub aof_base: bool,
}

/// The replication state that lets a restarted server go on by a partial resynchronisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationInfo<'a> {
    /// The database that the stream has selected.
    pub stream_db: u32,
    /// 40 hexadecimal digits.
    pub id: &'a str,
    /// Bytes of the stream that the data set contains.
    pub offset: u64,
}

impl<W: Write> Writer<W> {
    /// With `checksum` off (directive `rdbchecksum no`) the file ends in a checksum of 0, which readers do not check.
    pub fn new(sink: W, checksum: bool) -> Self {
        Self { sink, checksum: checksum.then(Crc64::new), written: 0, scratch: Vec::new() }
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Header and auxiliary fields.
    pub fn preamble(&mut self, p: &Preamble<'_>) -> io::Result<()> {
        let mut out = std::mem::take(&mut self.scratch);
        out.extend_from_slice(format!("REDIS{:04}", p.version).as_bytes());
        put_aux(&mut out, "redis-ver", p.redis_version.as_bytes());
        put_aux_number(&mut out, "redis-bits", usize::BITS.into());
        put_aux_number(&mut out, "ctime", p.created / 1000);
        put_aux_number(&mut out, "used-mem", p.used_memory as i64);
        if let Some(r) = &p.replication {
            put_aux_number(&mut out, "repl-stream-db", r.stream_db.into());
            put_aux(&mut out, "repl-id", r.id.as_bytes());
            put_aux_number(&mut out, "repl-offset", r.offset as i64);
        }
        put_aux_number(&mut out, "aof-base", p.aof_base.into());
        self.flush_scratch(out)
    }

    /// A function library, as the text that FUNCTION LOAD takes. Libraries stand before the first database.
    pub fn function(&mut self, code: &[u8]) -> io::Result<()> {
        let mut out = std::mem::take(&mut self.scratch);
        out.push(opcode::FUNCTION2);
        sink::put_string(&mut out, code, true);
        self.flush_scratch(out)
    }

    /// Opens database `db`. The numbers of keys and of keys with an expiry let the loader size its tables;
    /// they may be estimates.
    pub fn database(&mut self, db: u32, keys: u64, expires: u64) -> io::Result<()> {
        let mut out = std::mem::take(&mut self.scratch);
        out.push(opcode::SELECT_DB);
        sink::put_length(&mut out, db.into());
        out.push(opcode::RESIZE_DB);
        sink::put_length(&mut out, keys);
        sink::put_length(&mut out, expires);
        self.flush_scratch(out)
    }

    /// A block of whole encoded entries of the database that was opened last.
    pub fn entries(&mut self, block: &[u8]) -> io::Result<()> {
        if let Some(checksum) = &mut self.checksum {
            checksum.update(block);
        }
        self.sink.write_all(block)?;
        self.written += block.len() as u64;
        Ok(())
    }

    /// End mark and checksum. The caller flushes and syncs what it gets back.
    pub fn finish(mut self) -> io::Result<W> {
        self.entries(&[opcode::EOF])?;
        let checksum = self.checksum.take().map_or(0, |c| c.value());
        self.entries(&checksum.to_le_bytes())?;
        Ok(self.sink)
    }

    fn flush_scratch(&mut self, mut out: Vec<u8>) -> io::Result<()> {
        let result = self.entries(&out);
        out.clear();
        self.scratch = out;
        result
    }
}

fn put_aux(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.push(opcode::AUX);
    sink::put_plain(out, name.as_bytes());
    sink::put_string(out, value, false);
}

fn put_aux_number(out: &mut Vec<u8>, name: &str, value: i64) {
    out.push(opcode::AUX);
    sink::put_plain(out, name.as_bytes());
    sink::put_integer(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn preamble(replication: Option<ReplicationInfo<'_>>) -> Preamble<'_> {
        Preamble {
            version: super::super::VERSION_WRITTEN,
            redis_version: "7.4.1",
            created: 1_700_000_000_123,
            used_memory: 1000,
            replication,
            aof_base: false,
        }
    }

    #[test]
    fn an_empty_file_in_golden_bytes() {
        let mut w = Writer::new(vec![], true);
        w.preamble(&preamble(Some(ReplicationInfo { stream_db: 0, id: ID, offset: 14 }))).unwrap();
        let file = w.finish().unwrap();
        let body = [
            b"REDIS0010".as_slice(),
            b"\xfa\x09redis-ver\x057.4.1",
            b"\xfa\x0aredis-bits\xc0\x40",
            b"\xfa\x05ctime\xc2\x00\xf1\x53\x65",
            b"\xfa\x08used-mem\xc1\xe8\x03",
            b"\xfa\x0erepl-stream-db\xc0\x00",
            b"\xfa\x07repl-id\x28",
            ID.as_bytes(),
            b"\xfa\x0brepl-offset\xc0\x0e",
            b"\xfa\x08aof-base\xc0\x00",
            b"\xff",
        ]
        .concat();
        assert_eq!(file[..body.len()], body);
        assert_eq!(file[body.len()..], super::super::checksum::crc64(&body).to_le_bytes());
    }

    #[test]
    fn without_a_checksum_the_file_ends_in_zeros() {
        let mut w = Writer::new(vec![], false);
        w.preamble(&preamble(None)).unwrap();
        w.database(300, 70_000, 1).unwrap();
        let file = w.finish().unwrap();
        assert!(file.ends_with(b"\xfe\x41\x2c\xfb\x80\x00\x01\x11\x70\x01\xff\0\0\0\0\0\0\0\0"));
    }
}
