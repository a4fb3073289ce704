//! How a script is stopped from outside: every so many instructions of Lua, and every so many steps inside of
//! functions in Rust or C (which Lua's hooks do not see), the thread that runs it is asked whether it must end.

use std::ffi::{CStr, c_int, c_void};
use std::rc::Rc;

use mlua::{Lua, ffi, lua_State};

use super::raise::Raise;
use super::{State, Stop};

/// So many instructions of Lua are run between two looks.
const INSTRUCTIONS: c_int = 250;

/// If a look comes later than this, in nanoseconds, because single instructions work on hundreds of megabytes, one
/// follows after each instruction.
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

    /// Whether the script is to end.
    pub fn stops(&self) -> bool {
        self.stop.get().is_some()
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
        let stops = self.stops();
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

/// Libraries make no text that is longer, in bytes. The interpreter could hardly take it.
const LONGEST: usize = 512 << 20;

/// Functions return at most so many values at once, as the stack of a C function has room for.
const RESULTS: usize = 7990;

/// Counts the work of a library's function, which is then stopped as a script is.
pub(super) struct Toil(Option<Rc<State>>);

impl Toil {
    /// That of this interpreter; one that knows no state stops nothing.
    pub fn of(lua: &Lua) -> Self {
        Self(lua.app_data_ref::<Rc<State>>().map(|state| Rc::clone(&state)))
    }

    /// Notes so many steps.
    #[inline]
    pub fn spend(&self, steps: usize) -> Result<(), Raise> {
        match &self.0 {
            Some(state) if state.spend(steps) => Err(Raise::Here("stopped".into())),
            _ => Ok(()),
        }
    }

    /// Notes that so many bytes are added to a text.
    #[inline]
    pub fn add(&self, out: &[u8], bytes: usize) -> Result<(), Raise> {
        if out.len().saturating_add(bytes) > LONGEST {
            return Err(Raise::Here("not enough memory".into()));
        }
        self.spend(1 + bytes / 64)
    }

    /// Notes that a function has so many results. `full`: what it says of too many.
    #[inline]
    pub fn results(&self, count: usize, full: &str) -> Result<(), Raise> {
        if count > RESULTS { Err(Raise::Here(format!("stack overflow ({full})"))) } else { self.spend(1) }
    }
}

/// Under this key the registry has the state.
static STATE: u8 = 0;

fn state_key() -> *mut c_void {
    (&raw const STATE).cast_mut().cast()
}

/// Gives the interpreter its state, which it keeps.
pub(super) fn set_state(lua: &Lua, state: &Rc<State>) -> mlua::Result<()> {
    lua.set_app_data(Rc::clone(state));
    let state = Rc::as_ptr(state).cast_mut().cast::<c_void>();
    // SAFETY: the closure takes away what it pushes.
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
