//! `redis.call` and `redis.pcall`: C functions that take their words from the stack of the interpreter and put the
//! answer there.
//!
//! With mlua's values and closures a call took three times as long as in Redis, most of it before and after the
//! command. So Lua's C interface is used directly, by the rule of [`raise`](super::raise): a function that Lua may
//! leave by `longjmp` owns nothing that must be dropped. The command itself runs in [`run`], which calls nothing of
//! Lua's that could raise an error; its reply is read from a buffer in [`Answers`].

use std::cell::RefCell;
use std::ffi::c_int;
use std::rc::Rc;

use mlua::{Function, Lua, ffi, lua_State};
use smallvec::SmallVec;

use super::{State, convert, number, watch};
use crate::resp::Reply;

/// A command of so many words needs no allocation.
const FEW: usize = 16;

/// How an attempt at a command ended.
enum Ran {
    /// The answer is at this place in [`Answers`].
    Answered(usize),
    Refused(&'static str),
    /// The script is to end.
    Stopped,
}

/// Makes `redis.call`, which raises errors, or `redis.pcall`, which returns them.
pub(super) fn function<const RAISES: bool>(lua: &Lua, state: &Rc<State>) -> mlua::Result<Function> {
    let state = Rc::as_ptr(state).cast_mut();
    // SAFETY: the closure leaves one value on the stack. The engine keeps the state for longer than the interpreter.
    unsafe {
        lua.exec_raw((), |l| {
            ffi::lua_pushlightuserdata(l, state.cast());
            ffi::lua_pushcclosure(l, call::<RAISES>, 1);
        })
    }
}

unsafe extern "C-unwind" fn call<const RAISES: bool>(l: *mut lua_State) -> c_int {
    // SAFETY: Lua calls with a valid state and room for LUA_MINSTACK values; the upvalue is of `function`. What is
    // raised leaves this function and `convert`, which own nothing.
    unsafe {
        let state = &*ffi::lua_touserdata(l, ffi::lua_upvalueindex(1)).cast::<State>();
        let failed = match run(l, state) {
            Ran::Answered(place) => {
                let answer = state.answers.at(place);
                let pushed = convert::push_reply(l, (*answer).bytes(), state.resp3.get());
                state.answers.free(place);
                pushed.unwrap_or_else(|_| {
                    convert::push_error(l, b"ERR the reply is nested too deep for a script", false);
                    true
                })
            }
            Ran::Refused(text) => {
                convert::push_error(l, text.as_bytes(), false);
                true
            }
            Ran::Stopped => watch::raise_stopped(l),
        };
        if failed && RAISES {
            ffi::lua_error(l);
        }
        1
    }
}

/// Runs the command whose words are on the stack. Raises no error of Lua's.
///
/// # Safety
/// A valid state.
#[inline(never)]
unsafe fn run(l: *mut lua_State, state: &State) -> Ran {
    if state.stop.get().is_some() {
        return Ran::Stopped;
    }
    // SAFETY: of the caller; none of these functions raises errors when it is asked for what is there.
    let count = unsafe { ffi::lua_gettop(l) };
    if count == 0 {
        return Ran::Refused("ERR Please specify at least one argument for this redis lib call");
    }
    let mut digits = state.digits.take();
    digits.clear();
    let mut words = SmallVec::<[&[u8]; FEW]>::new();
    let mut numbers = SmallVec::<[(usize, usize); FEW]>::new();
    for at in 1..=count {
        // SAFETY: as above; texts stay where they are as long as they are on the stack.
        unsafe {
            match ffi::lua_type(l, at) {
                ffi::LUA_TSTRING => words.push(convert::text_at(l, at)),
                ffi::LUA_TNUMBER => {
                    number::write_argument(ffi::lua_tonumber(l, at), &mut digits);
                    numbers.push((words.len(), digits.len()));
                    words.push(&[]);
                }
                _ => return Ran::Refused("ERR Lua redis lib command arguments must be strings or integers"),
            }
        }
    }
    let mut from = 0;
    for (at, to) in numbers {
        words[at] = &digits[from..to];
        from = to;
    }
    let here = std::ptr::from_ref(&count).addr();
    let mut answer = state.answers.unused(here);
    let reply = Rc::get_mut(&mut answer).expect("nobody reads it");
    reply.recycle();
    let resp3 = state.resp3.get();
    let ended = state.with(|calls| calls.call(&words, resp3, reply));
    reply.flatten();
    let place = state.answers.put(here, answer);
    drop(words);
    state.digits.set(digits);
    match ended {
        Some(Ok(())) => Ran::Answered(place),
        Some(Err(stop)) => {
            state.end(stop);
            Ran::Stopped
        }
        None => Ran::Refused("ERR redis.call/pcall can only be called inside a script invocation"),
    }
}

/// The replies that are being read, each with the stack address of the frame that reads it. Nearly always there is
/// one buffer, which is reused.
///
/// A frame that Lua has left by `longjmp` cannot give its buffer back. But a frame whose address lies deeper in the
/// stack than the running one, or at the same place, has ended, and its buffer is free.
#[derive(Default)]
pub(super) struct Answers(RefCell<Vec<(usize, Rc<Reply>)>>);

impl Answers {
    /// A buffer that nobody reads any more, for the frame that is `here`.
    fn unused(&self, here: usize) -> Rc<Reply> {
        let mut answers = self.0.borrow_mut();
        let mut unused = None;
        while let Some((_, answer)) = answers.pop_if(|(frame, _)| *frame <= here) {
            unused = Some(answer);
        }
        unused.unwrap_or_default()
    }

    fn put(&self, here: usize, answer: Rc<Reply>) -> usize {
        let mut answers = self.0.borrow_mut();
        answers.push((here, answer));
        answers.len() - 1
    }

    fn at(&self, place: usize) -> *const Reply {
        Rc::as_ptr(&self.0.borrow()[place].1)
    }

    fn free(&self, place: usize) {
        self.0.borrow_mut()[place].0 = 0;
    }

    /// Nothing of Lua's runs: all are unused.
    pub fn free_all(&self) {
        let mut answers = self.0.borrow_mut();
        answers.truncate(1);
        answers.iter_mut().for_each(|(frame, _)| *frame = 0);
    }
}
