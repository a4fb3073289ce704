//! What FUNCTION DUMP returns and FUNCTION RESTORE takes: libraries as a file holds them, and the footer of
//! [`payload`](super::payload).

use super::payload::{Refused, seal, verified_body};
use super::source::Source;
use super::{opcode, sink};

/// The payload of libraries.
pub fn dump<'a>(codes: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for code in codes {
        out.push(opcode::FUNCTION2);
        sink::put_string(&mut out, code, true);
    }
    seal(&mut out, 0, super::VERSION_WRITTEN);
    out
}

/// The texts of a payload's libraries.
pub fn restore(payload: &[u8], verify: bool) -> Result<Vec<Vec<u8>>, Refused> {
    let body = verified_body(payload, verify).ok_or(Refused::Footer)?;
    let mut source = Source::new(body, body.len().min(16 << 10), false);
    let mut codes = Vec::new();
    while !source.at_end().map_err(Refused::Format)? {
        if source.u8("the code of a function library").map_err(Refused::Format)? != opcode::FUNCTION2 {
            return Err(Refused::NotFunctions);
        }
        codes.push(source.string("a function library").map_err(Refused::Format)?);
    }
    Ok(codes)
}
