//! Values of Lua as replies, and replies as values of Lua, on the stack of an interpreter.
//! Source: "Lua API reference", "Data type conversion".
//!
//! This does not use mlua's values: they cost more than the command itself. Every function of Lua's that allocates
//! may leave by `longjmp`, so nothing here owns memory of Rust's across such a call.

use std::ffi::c_int;

use mlua::{ffi, lua_State};

use super::number::{format_g, integer};
use super::watch;
use crate::resp::Reply;
use crate::resp::decode::{DecodeError, Piece, Reader};

/// How deep what a script returns may be nested.
const DEPTH: usize = 400;

/// The longest reply of a script, in bytes. Without a limit, tables that contain each other would make an endless
/// one.
const LARGEST: usize = super::sandbox::MEMORY;

/// Slots of the stack that a value takes on the way, besides itself.
const SLOTS: c_int = 6;

/// Pushes a text.
///
/// # Safety
/// A valid state with room for a value; inside a protected call.
pub(super) unsafe fn push_text(l: *mut lua_State, text: &[u8]) {
    // SAFETY: of the caller.
    unsafe { ffi::lua_pushlstring_(l, text.as_ptr().cast(), text.len()) };
}

/// The text at `at`, as long as it stays there.
///
/// # Safety
/// A valid state, and a string at `at`: a number would be changed.
pub(super) unsafe fn text_at<'a>(l: *mut lua_State, at: c_int) -> &'a [u8] {
    let mut len = 0;
    // SAFETY: of the caller.
    unsafe {
        let text = ffi::lua_tolstring(l, at, &raw mut len);
        std::slice::from_raw_parts(text.cast(), len)
    }
}

/// Pushes a field of the table at `at`, which must not count from the top, and returns its type.
///
/// # Safety
/// As for [`push_text`].
pub(super) unsafe fn push_field(l: *mut lua_State, at: c_int, name: &[u8]) -> c_int {
    // SAFETY: of the caller.
    unsafe {
        push_text(l, name);
        ffi::lua_rawget(l, at);
        ffi::lua_type(l, -1)
    }
}

/// Writes the value at `at`, which must not count from the top. `resp3` is the protocol that the script chose.
///
/// # Safety
/// A valid state, inside a protected call. When that ends in an error, a part of the value may be written.
pub(super) unsafe fn write_value(l: *mut lua_State, at: c_int, reply: &mut Reply, resp3: bool) {
    // SAFETY: of the caller.
    unsafe { write(l, at, reply, resp3, 0) };
}

unsafe fn write(l: *mut lua_State, at: c_int, reply: &mut Reply, resp3: bool, depth: usize) {
    // SAFETY: of the caller; there is room for what is pushed, and it is taken away again.
    unsafe {
        if depth > DEPTH || ffi::lua_checkstack(l, SLOTS) == 0 {
            return reply.error("ERR reached lua stack limit");
        }
        watch::spend(l, 8);
        if reply.len() > LARGEST {
            ffi::lua_pushstring(l, c"not enough memory".as_ptr());
            ffi::lua_error(l);
        }
        match ffi::lua_type(l, at) {
            ffi::LUA_TSTRING => reply.bulk(text_at(l, at)),
            ffi::LUA_TBOOLEAN if resp3 => reply.bool(ffi::lua_toboolean(l, at) != 0),
            ffi::LUA_TBOOLEAN if ffi::lua_toboolean(l, at) != 0 => reply.int(1),
            ffi::LUA_TNUMBER => reply.int(integer(ffi::lua_tonumber(l, at))),
            ffi::LUA_TTABLE => {
                let top = ffi::lua_gettop(l);
                write_table(l, at, reply, resp3, depth);
                ffi::lua_settop(l, top);
            }
            _ => reply.null(),
        }
    }
}

/// Leaves what it pushed on the stack.
unsafe fn write_table(l: *mut lua_State, at: c_int, reply: &mut Reply, resp3: bool, depth: usize) {
    // SAFETY: of the caller, who has made room.
    unsafe {
        let found = ffi::lua_gettop(l) + 1;
        let is = |name: &[u8], kind: c_int| {
            ffi::lua_settop(l, found - 1);
            push_field(l, at, name) == kind
        };
        if is(b"err", ffi::LUA_TSTRING) {
            return reply.error_bytes(text_at(l, found));
        }
        if is(b"ok", ffi::LUA_TSTRING) {
            return reply.simple_bytes(text_at(l, found));
        }
        if is(b"double", ffi::LUA_TNUMBER) {
            return write_double(reply, ffi::lua_tonumber(l, found));
        }
        if is(b"map", ffi::LUA_TTABLE) {
            let pairs = count_pairs(l, found);
            reply.map(pairs);
            return write_pairs(l, found, pairs, true, reply, resp3, depth);
        }
        if is(b"set", ffi::LUA_TTABLE) {
            let members = count_pairs(l, found);
            reply.set(members);
            return write_pairs(l, found, members, false, reply, resp3, depth);
        }
        if is(b"big_number", ffi::LUA_TSTRING) {
            return reply.big_number(text_at(l, found));
        }
        if is(b"verbatim_string", ffi::LUA_TTABLE)
            && push_field(l, found, b"format") == ffi::LUA_TSTRING
            && push_field(l, found, b"string") == ffi::LUA_TSTRING
        {
            return reply.verbatim_bytes(text_at(l, found + 1), text_at(l, found + 2));
        }
        ffi::lua_settop(l, found - 1);
        write_items(l, at, reply, resp3, depth);
    }
}

unsafe fn write_items(l: *mut lua_State, at: c_int, reply: &mut Reply, resp3: bool, depth: usize) {
    // SAFETY: of the caller.
    unsafe {
        let item = ffi::lua_gettop(l) + 1;
        let mut len = 0;
        loop {
            ffi::lua_rawgeti(l, at, len + 1);
            let ends = ffi::lua_type(l, item) == ffi::LUA_TNIL;
            ffi::lua_settop(l, item - 1);
            if ends {
                break;
            }
            len += 1;
        }
        reply.array(len as usize);
        // As many as were promised, also if a finalizer changes the table meanwhile.
        for n in 1..=len {
            ffi::lua_rawgeti(l, at, n);
            write(l, item, reply, resp3, depth + 1);
            ffi::lua_settop(l, item - 1);
        }
    }
}

unsafe fn count_pairs(l: *mut lua_State, at: c_int) -> usize {
    let mut count = 0;
    // SAFETY: of the caller.
    unsafe {
        ffi::lua_pushnil(l);
        while ffi::lua_next(l, at) != 0 {
            ffi::lua_settop(l, -2);
            count += 1;
        }
    }
    count
}

/// Writes the names of a table, and the values behind them if asked to.
unsafe fn write_pairs(
    l: *mut lua_State,
    at: c_int,
    count: usize,
    with_values: bool,
    reply: &mut Reply,
    resp3: bool,
    depth: usize,
) {
    // SAFETY: of the caller.
    unsafe {
        let name = ffi::lua_gettop(l) + 1;
        ffi::lua_pushnil(l);
        let mut ended = false;
        for _ in 0..count {
            // As many as were promised, also if a finalizer changes the table meanwhile.
            ended = ended || ffi::lua_next(l, at) == 0;
            if ended {
                reply.null();
                if with_values {
                    reply.null();
                }
                continue;
            }
            write(l, name, reply, resp3, depth + 1);
            if with_values {
                write(l, name + 1, reply, resp3, depth + 1);
            }
            ffi::lua_settop(l, name);
        }
    }
}

fn write_double(reply: &mut Reply, x: f64) {
    if x.is_finite() && !reply.is_resp3() {
        reply.bulk(format_g(x, 17).as_bytes());
    } else {
        reply.double(x);
    }
}

/// Pushes what a command answered, as scripts see it; true if it is an error. When it cannot be read, something else
/// may be on the stack.
///
/// # Safety
/// A valid state, inside a protected call.
pub(super) unsafe fn push_reply(l: *mut lua_State, bytes: &[u8], resp3: bool) -> Result<bool, DecodeError> {
    // SAFETY: of the caller.
    unsafe { push(l, &mut Reader::new(bytes), resp3, 0) }
}

unsafe fn push(
    l: *mut lua_State,
    reader: &mut Reader<'_>,
    resp3: bool,
    depth: usize,
) -> Result<bool, DecodeError> {
    let piece = reader.piece(depth)?.ok_or(DecodeError::INCOMPLETE)?;
    // SAFETY: of the caller; there is room for what is pushed.
    unsafe {
        if ffi::lua_checkstack(l, SLOTS) == 0 {
            return Err(DecodeError::TOO_DEEP);
        }
        match piece {
            Piece::Int(n) => ffi::lua_pushnumber(l, n as f64),
            Piece::Bulk(text) => push_text(l, text),
            Piece::Null if resp3 => ffi::lua_pushnil(l),
            Piece::Null => ffi::lua_pushboolean(l, 0),
            Piece::Simple(text) => {
                ffi::lua_createtable(l, 0, 1);
                set_text(l, b"ok", text);
            }
            Piece::Error(text) => {
                push_error(l, text, true);
                return Ok(true);
            }
            Piece::Array(count) | Piece::Push(count) => push_items(l, reader, count, resp3, depth)?,
            Piece::Map(count) => {
                ffi::lua_createtable(l, 0, 1);
                push_text(l, b"map");
                push_pairs(l, reader, count, true, resp3, depth)?;
                ffi::lua_rawset(l, -3);
            }
            Piece::Set(count) => {
                ffi::lua_createtable(l, 0, 1);
                push_text(l, b"set");
                push_pairs(l, reader, count, false, resp3, depth)?;
                ffi::lua_rawset(l, -3);
            }
            Piece::Attribute(count) => {
                push_pairs(l, reader, count, true, resp3, depth)?;
                ffi::lua_settop(l, -2);
                return push(l, reader, resp3, depth + 1);
            }
            Piece::Double(x) => {
                ffi::lua_createtable(l, 0, 1);
                push_text(l, b"double");
                ffi::lua_pushnumber(l, x);
                ffi::lua_rawset(l, -3);
            }
            Piece::Bool(yes) => ffi::lua_pushboolean(l, c_int::from(yes)),
            Piece::BigNumber(digits) => {
                ffi::lua_createtable(l, 0, 1);
                set_text(l, b"big_number", digits);
            }
            Piece::Verbatim { format, text } => {
                ffi::lua_createtable(l, 0, 1);
                push_text(l, b"verbatim_string");
                ffi::lua_createtable(l, 0, 2);
                set_text(l, b"format", format);
                set_text(l, b"string", text);
                ffi::lua_rawset(l, -3);
            }
        }
    }
    Ok(false)
}

/// Room is made for what is there, not for what a length promises.
unsafe fn push_items(
    l: *mut lua_State,
    reader: &mut Reader<'_>,
    count: usize,
    resp3: bool,
    depth: usize,
) -> Result<(), DecodeError> {
    // SAFETY: of the caller.
    unsafe {
        ffi::lua_createtable(l, count.min(reader.left() / 3).min(1 << 24) as c_int, 0);
        for at in 1..=count {
            push(l, reader, resp3, depth + 1)?;
            ffi::lua_rawseti(l, -2, at as ffi::lua_Integer);
        }
    }
    Ok(())
}

/// Pushes a table of pairs, or of members that are each true. Names that are nil are left out.
unsafe fn push_pairs(
    l: *mut lua_State,
    reader: &mut Reader<'_>,
    count: usize,
    with_values: bool,
    resp3: bool,
    depth: usize,
) -> Result<(), DecodeError> {
    // SAFETY: of the caller.
    unsafe {
        ffi::lua_createtable(l, 0, 0);
        for _ in 0..count {
            push(l, reader, resp3, depth + 1)?;
            if with_values {
                push(l, reader, resp3, depth + 1)?;
            } else {
                ffi::lua_pushboolean(l, 1);
            }
            if ffi::lua_type(l, -2) == ffi::LUA_TNIL {
                ffi::lua_settop(l, -3);
            } else {
                ffi::lua_rawset(l, -3);
            }
        }
    }
    Ok(())
}

unsafe fn set_text(l: *mut lua_State, name: &[u8], text: &[u8]) {
    // SAFETY: of the caller.
    unsafe {
        push_text(l, name);
        push_text(l, text);
        ffi::lua_rawset(l, -3);
    }
}

/// Pushes the table of an error. `counted`: it is a command's, which has counted it.
///
/// # Safety
/// As for [`push_text`], with room for four values.
pub(super) unsafe fn push_error(l: *mut lua_State, text: &[u8], counted: bool) {
    // SAFETY: of the caller.
    unsafe {
        ffi::lua_createtable(l, 0, 3);
        set_text(l, b"err", text);
        if counted {
            push_text(l, super::COUNTED.as_bytes());
            ffi::lua_pushboolean(l, 1);
            ffi::lua_rawset(l, -3);
        }
    }
}
