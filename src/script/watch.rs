//! What ends a script from outside: a look at whoever runs it, every so many instructions of Lua and every so many
//! steps of a function whose inside the interpreter does not see.

use std::ffi::{CStr, c_int, c_void};
use std::rc::Rc;

use mlua::{Lua, ffi, lua_State};

use super::{State, Stop};

/// So many instructions of Lua are run between two looks.
const INSTRUCTIONS: c_int = 250;

/// A look that is later than that, in nanoseconds, is followed by one after each instruction: some work on
/// hundreds of megabytes.
const LATE: u64 = 2_000_000;

/// Steps of functions between two looks. One takes a few nanoseconds.
const STEPS: usize = 20_000;

impl State {
    /// Notes that a function has gone so many steps. True: it is to leave, by [`raise_stopped`].
    #[inline]
    pub fn spend(&self, steps: usize) -> bool {
        match self.steps_left.get().checked_sub(steps) {
            Some(left) => {
                self.steps_left.set(left);
                false
            }
            None => self.look(),
        }
    }

    /// Asks whoever runs the script. True: it is to end.
    pub fn look(&self) -> bool {
        if self.stop.get().is_none() {
            match self.with(|calls| calls.look()) {
                Some(Err(stop)) => self.stop.set(Some(stop)),
                Some(Ok(elapsed)) => {
                    self.was_late.set(elapsed.saturating_sub(self.looked_at.replace(elapsed)) > LATE);
                }
                None => {}
            }
        }
        let stops = self.stop.get().is_some();
        self.steps_left.set(if stops { 0 } else { STEPS });
        stops
    }

    /// Ends the script at its next instruction or step.
    pub fn end(&self, stop: Stop) {
        self.stop.set(Some(stop));
        self.steps_left.set(0);
    }

    /// A run begins.
    pub fn restart(&self) {
        self.stop.set(None);
        self.steps_left.set(STEPS);
        self.looked_at.set(0);
        self.was_late.set(false);
    }
}

/// Under this key the registry has the state.
static STATE: u8 = 0;

fn state_key() -> *mut c_void {
    (&raw const STATE).cast_mut().cast()
}

/// Tells the interpreter where its state is.
pub(super) fn set_state(lua: &Lua, state: &Rc<State>) -> mlua::Result<()> {
    let state = Rc::as_ptr(state).cast_mut().cast::<c_void>();
    // SAFETY: the closure takes away what it pushes. The engine keeps the state for longer than the interpreter.
    unsafe {
        lua.exec_raw((), |l| {
            ffi::lua_pushlightuserdata(l, state_key());
            ffi::lua_pushlightuserdata(l, state);
            ffi::lua_rawset(l, ffi::LUA_REGISTRYINDEX);
        })
    }
}

/// The state of an interpreter that [`set_state`] told of it.
///
/// # Safety
/// A valid state with room for a value.
pub(super) unsafe fn state_of<'a>(l: *mut lua_State) -> &'a State {
    // SAFETY: of the caller, and as in `set_state`.
    unsafe {
        ffi::lua_pushlightuserdata(l, state_key());
        ffi::lua_rawget(l, ffi::LUA_REGISTRYINDEX);
        let state = ffi::lua_touserdata(l, -1).cast::<State>();
        ffi::lua_settop(l, -2);
        &*state
    }
}

/// Looks from now on. Coroutines do what the function does that makes them.
///
/// # Safety
/// A valid state that knows its [`State`].
pub(super) unsafe fn begin(l: *mut lua_State) {
    // SAFETY: of the caller.
    unsafe { ffi::lua_sethook(l, Some(at_instruction), ffi::LUA_MASKCOUNT, INSTRUCTIONS) };
}

unsafe extern "C-unwind" fn at_instruction(l: *mut lua_State, _: *mut ffi::lua_Debug) {
    // SAFETY: Lua calls hooks with a valid state and room for LUA_MINSTACK values. Nothing here is to be dropped.
    unsafe {
        let state = state_of(l);
        let stops = state.look();
        // The script may catch the error: it gets the next one at once.
        let often = stops || state.was_late.get();
        let count = if often { 1 } else { INSTRUCTIONS };
        if ffi::lua_gethookcount(l) != count {
            ffi::lua_sethook(l, Some(at_instruction), ffi::LUA_MASKCOUNT, count);
        }
        if stops {
            raise_stopped(l);
        }
    }
}

/// Raises the error of a script that is stopped.
///
/// # Safety
/// A valid state, inside a protected call. The caller owns nothing.
pub(super) unsafe fn raise_stopped(l: *mut lua_State) -> ! {
    const TEXT: &CStr = c"stopped";
    // SAFETY: of the caller.
    unsafe {
        ffi::lua_pushstring(l, TEXT.as_ptr());
        ffi::lua_error(l)
    }
}

/// [`State::spend`], for functions that have an interpreter alone.
///
/// # Safety
/// As for [`raise_stopped`], and an interpreter that knows its state.
pub(super) unsafe fn spend(l: *mut lua_State, steps: usize) {
    // SAFETY: of the caller.
    unsafe {
        if state_of(l).spend(steps) {
            raise_stopped(l);
        }
    }
}
