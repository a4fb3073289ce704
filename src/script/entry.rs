//! The way into the interpreter: a function of Lua's is called with what it is given, and what it returns is written as
//! a reply, in one protected call behind mlua's back.
//!
//! With mlua's calls a script that does nothing took 4,300 instructions more. Every function of Lua's that allocates
//! may leave by `longjmp`, so [`enter`] owns nothing, and its results stand in [`Job`].

use std::cell::Cell;
use std::ffi::c_int;

use mlua::{Lua, RegistryKey, Table, ffi, lua_State};

use super::convert::{push_field, push_text, text_at, write_value};
use super::{COUNTED, Given, KILLED, Stop, raise, watch};
use crate::base::lossless;
use crate::resp::Reply;

/// What a function is given.
#[derive(Clone, Copy)]
pub(super) enum Passed<'a> {
    Nothing,
    /// In KEYS and ARGV.
    Globals(Given<'a>),
    Arguments(Given<'a>),
}

/// How a call ended: the error that the function returned, or what it raised.
pub(super) type Result = std::result::Result<Option<Raised>, Raised>;

/// One call of a function.
pub(super) struct Job<'a> {
    /// Its place in the registry.
    function: c_int,
    passed: Passed<'a>,
    /// Where what it returns is written.
    reply: Option<&'a mut Reply>,
    resp3: &'a Cell<bool>,
    result: Option<Result>,
}

impl<'a> Job<'a> {
    pub fn new(
        function: c_int,
        passed: Passed<'a>,
        reply: Option<&'a mut Reply>,
        resp3: &'a Cell<bool>,
    ) -> Self {
        Self { function, passed, reply, resp3, result: None }
    }
}

/// See the module.
pub(super) struct Entry {
    /// The interpreter's own thread. It is not in use while an [`Entry`] can be called: no function of Lua's runs then.
    state: *mut lua_State,
    enter: RegistryKey,
}

/// Upvalues of [`enter`].
const DESCRIBE: c_int = 1;
const GLOBALS: c_int = 2;
const KEYS: c_int = 3;
const ARGV: c_int = 4;

impl Entry {
    /// `globals`: where KEYS and ARGV are put.
    pub fn new(lua: &Lua, globals: &Table) -> mlua::Result<Self> {
        let mut state = std::ptr::null_mut();
        let upvalues = (raise::describer(lua)?, globals.clone(), "KEYS", "ARGV");
        // SAFETY: the closure takes the four values on the stack and leaves one.
        let function: mlua::Function = unsafe {
            lua.exec_raw(upvalues, |l| {
                state = l;
                ffi::lua_pushcclosure(l, enter, ARGV);
            })?
        };
        Ok(Self { state, enter: lua.create_registry_value(function)? })
    }

    /// Calls a function.
    pub fn enter(&self, mut job: Job<'_>) -> Result {
        let l = self.state;
        // SAFETY: the state lives as long as the engine that this is a part of. Between calls its stack has room for
        // LUA_MINSTACK values; nothing here raises an error outside of the protected call.
        unsafe {
            let top = ffi::lua_gettop(l);
            watch::begin(l);
            ffi::lua_rawgeti_(l, ffi::LUA_REGISTRYINDEX, self.enter.id());
            ffi::lua_pushlightuserdata(l, (&raw mut job).cast());
            let status = ffi::lua_pcall(l, 1, 0, 0);
            let result = match (status, job.result.take()) {
                (0, Some(result)) => result,
                // Memory ran out before the function was called, or behind it.
                _ if ffi::lua_type(l, -1) == ffi::LUA_TSTRING => Err(Raised::text(text_at(l, -1))),
                _ => Err(Raised::text(b"unknown error")),
            };
            ffi::lua_settop(l, top);
            result
        }
    }
}

unsafe extern "C-unwind" fn enter(l: *mut lua_State) -> c_int {
    // SAFETY: Lua calls with a valid state and room for LUA_MINSTACK values. The job is the caller's, who waits.
    unsafe {
        let job = &mut *ffi::lua_touserdata(l, 1).cast::<Job<'_>>();
        ffi::lua_pushvalue(l, ffi::lua_upvalueindex(DESCRIBE));
        ffi::lua_replace(l, 1);
        ffi::lua_rawgeti_(l, ffi::LUA_REGISTRYINDEX, job.function);
        let mut args = 0;
        match job.passed {
            Passed::Nothing => {}
            Passed::Globals(given) => {
                for (name, texts) in [(KEYS, given.keys), (ARGV, given.args)] {
                    ffi::lua_pushvalue(l, ffi::lua_upvalueindex(name));
                    push_texts(l, texts);
                    ffi::lua_rawset(l, ffi::lua_upvalueindex(GLOBALS));
                }
            }
            Passed::Arguments(given) => {
                push_texts(l, given.keys);
                push_texts(l, given.args);
                args = 2;
            }
        }
        if ffi::lua_pcall(l, args, 1, 1) != 0 {
            job.result = Some(Err(raised(l)));
            return 0;
        }
        if let Some(reply) = &mut job.reply {
            write_value(l, 2, reply, job.resp3.get());
        }
        let is_error = ffi::lua_type(l, 2) == ffi::LUA_TTABLE && push_field(l, 2, b"err") == ffi::LUA_TSTRING;
        job.result = Some(Ok(None));
        if is_error {
            ffi::lua_settop(l, 2);
            job.result = Some(Ok(Some(raised(l))));
        }
        0
    }
}

/// Pushes a table of texts.
unsafe fn push_texts(l: *mut lua_State, texts: &[&[u8]]) {
    // SAFETY: of the caller.
    unsafe {
        ffi::lua_createtable(l, texts.len() as c_int, 0);
        for (at, text) in texts.iter().enumerate() {
            push_text(l, text);
            ffi::lua_rawseti_(l, -2, at as c_int + 1);
        }
    }
}

/// The error at place 2, which is a table with its text, or a text where memory ran out.
unsafe fn raised(l: *mut lua_State) -> Raised {
    // SAFETY: of the caller, who has room for four values. From `text_of` on nothing takes memory of Lua's.
    unsafe {
        match ffi::lua_type(l, 2) {
            ffi::LUA_TSTRING => return Raised::text(text_at(l, 2)),
            ffi::LUA_TTABLE => {}
            _ => return Raised::text(b"unknown error"),
        }
        push_field(l, 2, b"err");
        push_field(l, 2, b"source");
        push_field(l, 2, b"line");
        push_field(l, 2, COUNTED.as_bytes());
        let text_of = |at: c_int| {
            let is_text = ffi::lua_type(l, at) == ffi::LUA_TSTRING;
            is_text.then(|| lossless::text(text_at(l, at)).into_owned())
        };
        let line = (ffi::lua_type(l, 5) == ffi::LUA_TNUMBER).then(|| ffi::lua_tonumber(l, 5) as i64);
        Raised {
            text: text_of(3).unwrap_or_else(|| "ERR unknown error".into()),
            at: text_of(4).zip(line),
            counted: ffi::lua_toboolean(l, 6) != 0,
        }
    }
}

/// An error that a script raised, or returned.
pub(super) struct Raised {
    pub text: String,
    /// The source and line.
    at: Option<(String, i64)>,
    pub counted: bool,
}

impl Raised {
    fn text(text: &[u8]) -> Self {
        Self { text: format!("ERR {}", lossless::text(text)), at: None, counted: false }
    }

    /// The error as clients see it.
    pub fn whole(self, name: &str, stop: Option<Stop>) -> String {
        let text = if stop.is_some() { KILLED } else { &self.text };
        match self.at {
            Some((source, line)) => format!("{text} script: {name}, on {source}:{line}."),
            None => text.to_owned(),
        }
    }
}
