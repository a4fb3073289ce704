//! `bit`: operations on numbers as 32 bits.
//! Source: the documentation of Lua BitOp.

use mlua::{Lua, MultiValue, Table};

use super::{define, number};
use crate::script::raise::{Answer, Raise, one};

/// A number as 32 bits, as it wraps around.
fn bits(lua: &Lua, args: &MultiValue, at: usize, name: &str) -> Result<u32, Raise> {
    let x = number(lua, args, at, name)?;
    // Numbers are whole up to 2^53; beyond, and between, they are rounded to the nearest even.
    Ok(if x.is_finite() { x.round_ties_even() as i128 as u32 } else { 0 })
}

fn signed(lua: &Lua, x: u32) -> Answer {
    one(lua, f64::from(x.cast_signed()))
}

/// The global table `bit`.
pub fn library(lua: &Lua) -> mlua::Result<Table> {
    let bit = lua.create_table()?;
    let fold: [(&str, fn(u32, u32) -> u32); 3] =
        [("band", |a, b| a & b), ("bor", |a, b| a | b), ("bxor", |a, b| a ^ b)];
    for (name, f) in fold {
        define(lua, &bit, name, move |lua, args| {
            let mut all = bits(lua, &args, 1, name)?;
            for at in 2..=args.len() {
                all = f(all, bits(lua, &args, at, name)?);
            }
            signed(lua, all)
        })?;
    }
    let shift: [(&str, fn(u32, u32) -> u32); 5] = [
        ("lshift", |x, n| x << n),
        ("rshift", |x, n| x >> n),
        ("arshift", |x, n| (x.cast_signed() >> n).cast_unsigned()),
        ("rol", u32::rotate_left),
        ("ror", u32::rotate_right),
    ];
    for (name, f) in shift {
        define(lua, &bit, name, move |lua, args| {
            let (x, by) = (bits(lua, &args, 1, name)?, bits(lua, &args, 2, name)?);
            signed(lua, f(x, by & 31))
        })?;
    }
    let single: [(&str, fn(u32) -> u32); 3] =
        [("tobit", |x| x), ("bnot", |x| !x), ("bswap", u32::swap_bytes)];
    for (name, f) in single {
        define(lua, &bit, name, move |lua, args| signed(lua, f(bits(lua, &args, 1, name)?)))?;
    }
    define(lua, &bit, "tohex", tohex)?;
    Ok(bit)
}

/// Hexadecimal digits: as many as the second argument says, in upper case when that is negative.
fn tohex(lua: &Lua, args: MultiValue) -> Answer {
    let x = bits(lua, &args, 1, "tohex")?;
    let digits = if args.len() > 1 { bits(lua, &args, 2, "tohex")?.cast_signed() } else { 8 };
    let width = digits.unsigned_abs().min(8) as usize;
    let all = if digits < 0 { format!("{x:08X}") } else { format!("{x:08x}") };
    one(lua, &all[8 - width..])
}
