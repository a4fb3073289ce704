//! `math.random` and `math.randomseed`: the numbers of POSIX `drand48`, so that a seed gives the same ones on every
//! machine, and those that it gives in Redis.
//! Source: POSIX, `drand48`; which part of them a script sees was observed.
//!
//! As [`basics`](super::basics): nothing here must be dropped, because Lua may leave it by `longjmp`.

use std::ffi::c_int;

use mlua::{Function, Lua, Table, ffi, lua_State};

/// Where the sequence stands before anybody has chosen a seed.
const UNSEEDED: u64 = 0x1234_ABCD_330E;
/// Numbers are drawn from 0 to this, without it.
const RANGE: u64 = (1 << 31) - 1;

/// The next of 31 bits.
fn draw(sequence: &mut u64) -> u64 {
    *sequence = sequence.wrapping_mul(0x5_DEEC_E66D).wrapping_add(0xB) & ((1 << 48) - 1);
    *sequence >> 17
}

/// Puts both functions into `math`. They share one sequence.
pub(super) fn replace(lua: &Lua, math: &Table) -> mlua::Result<()> {
    // SAFETY: the closure leaves two functions on an empty stack, each with the userdata as its upvalue, which is large
    // enough for the sequence and aligned for every number.
    let (random, seed): (Function, Function) = unsafe {
        lua.exec_raw((), |state| {
            ffi::lua_newuserdata(state, size_of::<u64>()).cast::<u64>().write(UNSEEDED);
            ffi::lua_pushvalue(state, -1);
            ffi::lua_pushcclosure(state, random, 1);
            ffi::lua_insert(state, -2);
            ffi::lua_pushcclosure(state, seed, 1);
        })?
    };
    math.raw_set("random", random)?;
    math.raw_set("randomseed", seed)
}

/// The sequence of the function that is running.
unsafe fn sequence<'a>(state: *mut lua_State) -> &'a mut u64 {
    // SAFETY: the upvalue is of `replace`, and no other reference to it is alive: neither function calls back.
    unsafe { &mut *ffi::lua_touserdata(state, ffi::lua_upvalueindex(1)).cast::<u64>() }
}

/// An argument as a C `int`: what does not fit wraps around.
unsafe fn int(state: *mut lua_State, at: c_int) -> c_int {
    // SAFETY: of the caller.
    unsafe { ffi::luaL_checkinteger(state, at) as c_int }
}

unsafe extern "C-unwind" fn random(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls with a valid state and room for LUA_MINSTACK values.
    unsafe {
        let share = (draw(sequence(state)) % RANGE) as f64 / RANGE as f64;
        let (low, high, last) = match ffi::lua_gettop(state) {
            0 => {
                ffi::lua_pushnumber(state, share);
                return 1;
            }
            1 => (1, int(state, 1), 1),
            2 => (int(state, 1), int(state, 2), 2),
            _ => return ffi::luaL_error(state, c"wrong number of arguments".as_ptr()),
        };
        if low > high {
            return ffi::luaL_argerror(state, last, c"interval is empty".as_ptr());
        }
        let width = high.wrapping_sub(low).wrapping_add(1);
        ffi::lua_pushnumber(state, (share * f64::from(width)).floor() + f64::from(low));
        1
    }
}

unsafe extern "C-unwind" fn seed(state: *mut lua_State) -> c_int {
    // SAFETY: as in `random`.
    unsafe {
        let seed = int(state, 1).cast_unsigned();
        *sequence(state) = u64::from(seed) << 16 | 0x330E;
    }
    0
}
