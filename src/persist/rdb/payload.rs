//! What DUMP returns and RESTORE and MIGRATE take: type and body of one value, two bytes of RDB version
//! (little-endian), and a CRC-64 of all before it.

use super::checksum::crc64;
use super::error::{Error, Problem};
use super::source::Source;
use super::{Options, VERSION_READ, VERSION_WITH_TIMES, VERSION_WRITTEN, decode, encode, value_type};
use crate::keyspace::snapshot::Part;
use crate::value::{Limits, Value, ValueRef};

const FOOTER: usize = 2 + 8;
/// Bytes of a payload beside the value: the type in front and the footer.
pub const FRAME: usize = 1 + FOOTER;

/// Why a payload is refused.
#[derive(Debug)]
pub enum Refused {
    /// Too short for a footer, from a newer server, or damaged on its way.
    Footer,
    /// The checksum holds, but the value does not.
    Format(Error),
    /// Something else than libraries of functions.
    NotFunctions,
}

impl Refused {
    /// The error reply of RESTORE.
    pub const fn reply(&self) -> &'static str {
        match self {
            Refused::Footer => "ERR DUMP payload version or checksum are wrong",
            Refused::Format(_) => "ERR Bad data format",
            Refused::NotFunctions => "ERR given type is not a function",
        }
    }
}

/// Appends the payload of `value` to `out`.
pub fn dump(out: &mut Vec<u8>, value: ValueRef<'_>, options: Options) {
    let start = out.len();
    out.push(encode::type_of(value));
    encode::put_value(out, value, options, Part::WHOLE);
    // What only 7.4 reads says so.
    let version = if out[start] >= value_type::HASH_METADATA { VERSION_WITH_TIMES } else { VERSION_WRITTEN };
    seal(out, start, version);
}

/// Ends the payload that begins at `start` with version and checksum.
pub(super) fn seal(out: &mut Vec<u8>, start: usize, version: u32) {
    out.extend_from_slice(&(version as u16).to_le_bytes());
    let checksum = crc64(&out[start..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

/// The value of a payload. It must be one value and nothing more.
pub fn restore(payload: &[u8], limits: &Limits) -> Result<Value, Refused> {
    let body = verified_body(payload, limits.verify_checksums).ok_or(Refused::Footer)?;
    let mut source = Source::new(body, body.len().min(16 << 10), false);
    let value = source
        .u8("the type of a value")
        .and_then(|code| decode::value(&mut source, code, limits))
        .map_err(Refused::Format)?;
    match source.at_end() {
        Ok(true) => Ok(value),
        _ => Err(Refused::Format(source.error(Problem::Malformed {
            expected: "the end of the payload",
            why: "more bytes follow the value",
        }))),
    }
}

/// Type and body of a payload whose footer is right; whether its checksum is, only with `verify`.
pub(super) fn verified_body(payload: &[u8], verify: bool) -> Option<&[u8]> {
    let (body, footer) = payload.split_at_checked(payload.len().checked_sub(FOOTER)?)?;
    let (version, checksum) = footer.split_at(2);
    let version = u32::from(u16::from_le_bytes(version.try_into().ok()?));
    let checksum = u64::from_le_bytes(checksum.try_into().ok()?);
    let right = !verify || checksum == crc64(&payload[..payload.len() - 8]);
    (version <= VERSION_READ && right).then_some(body)
}
