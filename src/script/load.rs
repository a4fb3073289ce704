//! `load` and `loadstring`: texts become functions, piece by piece, so that a long one can be stopped on the way.
//! Compiled code is none of them: it could do anything.

use std::ffi::{CStr, c_char, c_int, c_void};

use mlua::{Function, Lua, Table, ffi, lua_State};

use super::patterns::text_argument;
use super::watch::{raise_stopped, state_of};

/// Bytes of a text that are given to the compiler at once.
const PIECE: usize = 16 * 1024;

/// Puts the functions in the place of Lua's.
pub(super) fn replace(lua: &Lua, globals: &Table) -> mlua::Result<()> {
    let functions: [(&str, ffi::lua_CFunction); 2] = [("loadstring", load_text), ("load", load_pieces)];
    for (name, function) in functions {
        // SAFETY: the functions keep Lua's protocol of C functions.
        let function: Function = unsafe { lua.create_c_function(function)? };
        globals.raw_set(name, function)?;
    }
    Ok(())
}

/// What the compiler has not read yet.
struct Source<'a> {
    begun: bool,
    /// Of [`load_text`].
    rest: &'a [u8],
}

impl Source<'_> {
    /// What is read first: behind it nothing is taken for compiled code.
    const FRONT: &'static CStr = c" ";

    /// The front, once.
    fn front(&mut self, len: *mut usize) -> Option<*const c_char> {
        let is_first = !std::mem::replace(&mut self.begun, true);
        // SAFETY: Lua gives its readers a place for the length.
        is_first.then(|| unsafe {
            *len = Self::FRONT.count_bytes();
            Self::FRONT.as_ptr()
        })
    }
}

/// Leaves the function, or nil and what is wrong with the text.
unsafe fn load(l: *mut lua_State, reader: ffi::lua_Reader, text: &[u8], name: *const c_char) -> c_int {
    let mut source = Source { begun: false, rest: text };
    // SAFETY: of the caller. The reader has the source while the compiler runs.
    unsafe {
        let status = ffi::lua_load(l, reader, (&raw mut source).cast(), name);
        if state_of(l).stops() {
            raise_stopped(l);
        }
        if status == 0 {
            return 1;
        }
        ffi::lua_pushnil(l);
        ffi::lua_insert(l, -2);
        2
    }
}

unsafe extern "C-unwind" fn load_text(l: *mut lua_State) -> c_int {
    // SAFETY: Lua calls with a valid state and room for LUA_MINSTACK values.
    unsafe {
        let text = text_argument(l, 1);
        let name = ffi::luaL_optlstring(l, 2, text.as_ptr().cast(), std::ptr::null_mut());
        load(l, read_text, text, name)
    }
}

unsafe extern "C-unwind" fn read_text(
    l: *mut lua_State,
    data: *mut c_void,
    len: *mut usize,
) -> *const c_char {
    // SAFETY: Lua calls with what `load` gave it.
    unsafe {
        let source = &mut *data.cast::<Source<'_>>();
        if let Some(front) = source.front(len) {
            return front;
        }
        let (piece, rest) = source.rest.split_at(source.rest.len().min(PIECE));
        source.rest = rest;
        if state_of(l).spend(piece.len()) {
            raise_stopped(l);
        }
        *len = piece.len();
        piece.as_ptr().cast()
    }
}

/// Where the last piece stays while it is read.
const KEPT: c_int = 3;

unsafe extern "C-unwind" fn load_pieces(l: *mut lua_State) -> c_int {
    // SAFETY: as in `load_text`.
    unsafe {
        let name = ffi::luaL_optlstring(l, 2, c"=(load)".as_ptr(), std::ptr::null_mut());
        ffi::luaL_checktype(l, 1, ffi::LUA_TFUNCTION);
        ffi::lua_settop(l, KEPT);
        load(l, read_piece, &[], name)
    }
}

unsafe extern "C-unwind" fn read_piece(
    l: *mut lua_State,
    data: *mut c_void,
    len: *mut usize,
) -> *const c_char {
    const NO_TEXT: &CStr = c"reader function must return a string";
    const TOO_DEEP: &CStr = c"too many nested functions";
    // SAFETY: as in `read_text`.
    unsafe {
        if let Some(front) = (*data.cast::<Source<'_>>()).front(len) {
            return front;
        }
        ffi::luaL_checkstack_(l, 2, TOO_DEEP.as_ptr());
        ffi::lua_pushvalue(l, 1);
        ffi::lua_call(l, 0, 1);
        if ffi::lua_type(l, -1) == ffi::LUA_TNIL {
            *len = 0;
            return std::ptr::null();
        }
        if ffi::lua_isstring(l, -1) == 0 {
            ffi::luaL_error(l, NO_TEXT.as_ptr());
        }
        ffi::lua_replace(l, KEPT);
        let text = ffi::lua_tolstring(l, KEPT, len);
        if state_of(l).spend(1 + *len) {
            raise_stopped(l);
        }
        text
    }
}
