//! Replies of every type, errors, and lines of the log, for tests of those who read them.

use crate::base::lossless;
use crate::command::{CommandError, Ctx, DONE, Result};

/// A value of each type of the protocol, for tests of clients.
pub fn protocol(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    const RESP3_ONLY: CommandError = CommandError::text("ERR RESP2 is not supported by this command");
    let (resp3, reply) = (ctx.client.resp3, &mut *ctx.reply);
    match args[2].to_ascii_lowercase().as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.int(12345),
        b"double" => reply.double(3141.0 / 1000.0),
        b"null" => reply.null(),
        b"array" => {
            reply.array(3);
            (0..3).for_each(|n| reply.int(n));
        }
        b"set" => {
            reply.set(3);
            (0..3).for_each(|n| reply.int(n));
        }
        b"map" => {
            reply.map(3);
            for n in 0..3 {
                reply.int(n);
                reply.bool(n == 1);
            }
        }
        b"push" if !resp3 => return Err(RESP3_ONLY),
        b"attrib" => {
            if resp3 {
                reply.raw(b"|1\r\n");
                reply.bulk(b"key-popularity");
                reply.array(2);
                reply.bulk(b"key:123");
                reply.int(90);
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        b"push" => {
            // A message out of band comes behind the reply to the command that caused it.
            reply.bulk(b"Some real reply following the push reply");
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.int(42);
        }
        b"verbatim" => reply.verbatim("txt", "This is a verbatim\nstring"),
        b"true" => reply.bool(true),
        b"false" => reply.bool(false),
        b"bignum" if resp3 => reply.raw(b"(1234567999999999999999999999999999999\r\n"),
        b"bignum" => reply.bulk(b"1234567999999999999999999999999999999"),
        _ => {
            return Err(CommandError::text(
                "ERR Wrong protocol type name. Please use one of the following: string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    DONE
}

pub fn error(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    Err(CommandError::owned(lossless::text(args[2]).replace(['\r', '\n'], " ")))
}

pub fn log(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    tracing::warn!("DEBUG LOG: {}", String::from_utf8_lossy(args[2]));
    ctx.reply.ok();
    DONE
}
