//! `cmsgpack`: MessagePack as bytes and as tables.
//! Source: the MessagePack specification; the documentation of lua-cmsgpack.

use mlua::{Lua, MultiValue, Table, Value};

use super::{define, number, text};
use crate::script::raise::{Answer, Raise, bad_argument, one};
use crate::script::watch::Toil;

/// Tables nested deeper are written as nil.
const NESTING: usize = 16;
/// No input is read that is nested deeper: reading recurses.
const READ_DEPTH: usize = 1000;

/// Whole numbers below this, and from its negative on, are written as such.
const TWO_63: f64 = (1_u64 << 63) as f64;

/// The global table `cmsgpack`.
pub fn library(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    define(lua, &table, "pack", pack)?;
    define(lua, &table, "unpack", |lua, args| unpack(lua, &args, usize::MAX, 0, "unpack"))?;
    define(lua, &table, "unpack_one", |lua, args| {
        let from = offset(lua, &args, 2, "unpack_one")?;
        unpack(lua, &args, 1, from, "unpack_one")
    })?;
    define(lua, &table, "unpack_limit", |lua, args| {
        let limit = number(lua, &args, 2, "unpack_limit")? as i64;
        let from = offset(lua, &args, 3, "unpack_limit")?;
        let Ok(limit) = usize::try_from(limit) else {
            return Err(negative(from, text(lua, &args, 1, "unpack_limit")?.as_bytes().len()));
        };
        // Nothing asked for from the beginning on is all, as in Redis.
        let limit = if limit == 0 && from == 0 { usize::MAX } else { limit };
        unpack(lua, &args, limit, from, "unpack_limit")
    })?;
    table.raw_set("_NAME", "cmsgpack")?;
    table.raw_set("_VERSION", "lua-cmsgpack 0.4.0")?;
    table.raw_set("_COPYRIGHT", "Copyright (C) 2012, Redis Ltd.")?;
    table.raw_set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    Ok(table)
}

fn offset(lua: &Lua, args: &MultiValue, at: usize, name: &str) -> Result<i64, Raise> {
    if args.len() < at { Ok(0) } else { Ok(number(lua, args, at, name)? as i64) }
}

fn pack(lua: &Lua, args: MultiValue) -> Answer {
    if args.is_empty() {
        return Err(bad_argument(0, "pack", "MessagePack pack needs input."));
    }
    let (toil, mut out) = (Toil::of(lua), Vec::new());
    for value in &args {
        write(&toil, value, 0, &mut out)?;
    }
    one(lua, lua.create_string(out)?)
}

fn write(toil: &Toil, value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), Raise> {
    toil.add(out, 0)?;
    match value {
        Value::String(text) => {
            toil.add(out, text.as_bytes().len())?;
            write_text(&text.as_bytes(), out);
        }
        Value::Boolean(yes) => out.push(if *yes { 0xc3 } else { 0xc2 }),
        Value::Number(x) => write_number(*x, out),
        Value::Integer(n) => write_int(*n, out),
        Value::Table(table) if depth < NESTING => write_table(toil, table, depth, out)?,
        _ => out.push(0xc0),
    }
    Ok(())
}

fn write_number(x: f64, out: &mut Vec<u8>) {
    if x.fract() == 0.0 && (-TWO_63..TWO_63).contains(&x) {
        write_int(x as i64, out);
    } else if f64::from(x as f32) == x {
        out.push(0xca);
        out.extend((x as f32).to_be_bytes());
    } else {
        out.push(0xcb);
        out.extend(x.to_be_bytes());
    }
}

fn write_int(n: i64, out: &mut Vec<u8>) {
    match n {
        -32..=0x7f => out.push(n as u8),
        0x80..=0xff => out.extend([0xcc, n as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend((n as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend((n as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            out.push(0xcf);
            out.extend((n as u64).to_be_bytes());
        }
        -128..=-33 => out.extend([0xd0, n as u8]),
        -0x8000..=-129 => {
            out.push(0xd1);
            out.extend((n as i16).to_be_bytes());
        }
        -0x8000_0000..=-0x8001 => {
            out.push(0xd2);
            out.extend((n as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend(n.to_be_bytes());
        }
    }
}

fn write_text(text: &[u8], out: &mut Vec<u8>) {
    match text.len() {
        len @ 0..=31 => out.push(0xa0 | len as u8),
        len @ 32..=0xff => out.extend([0xd9, len as u8]),
        len @ 0x100..=0xffff => {
            out.push(0xda);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0xdb);
            out.extend((len as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

/// The length of a collection, in the shortest of three forms.
fn write_len(len: usize, forms: [u8; 3], out: &mut Vec<u8>) {
    match len {
        0..=15 => out.push(forms[0] | len as u8),
        16..=0xffff => {
            out.push(forms[1]);
            out.extend((len as u16).to_be_bytes());
        }
        _ => {
            out.push(forms[2]);
            out.extend((len as u32).to_be_bytes());
        }
    }
}

fn write_table(toil: &Toil, table: &Table, depth: usize, out: &mut Vec<u8>) -> Result<(), Raise> {
    // Looked at twice: a copy of a large table would be larger than it is.
    let (mut count, mut most) = (0, Some(0.0f64));
    for pair in table.pairs::<Value, Value>() {
        toil.spend(8)?;
        let place = match pair?.0 {
            Value::Integer(n) => Some(n as f64),
            Value::Number(x) => Some(x),
            _ => None,
        };
        let place = place.filter(|x| *x > 0.0 && x.fract() == 0.0);
        most = most.and_then(|most| Some(most.max(place?)));
        count += 1;
    }
    if most == Some(count as f64) {
        write_len(count, [0x90, 0xdc, 0xdd], out);
        for at in 1..=count {
            write(toil, &table.raw_get::<Value>(at)?, depth + 1, out)?;
        }
        return Ok(());
    }
    write_len(count, [0x80, 0xde, 0xdf], out);
    for pair in table.pairs::<Value, Value>() {
        let (name, value) = pair?;
        write(toil, &name, depth + 1, out)?;
        write(toil, &value, depth + 1, out)?;
    }
    Ok(())
}

const FULL: &str = "too many return values at once; use unpack_one or unpack_limit instead.";

/// What a negative offset or limit is told. Redis names the length of the input as the limit.
fn negative(from: i64, len: usize) -> Raise {
    Raise::Here(format!("Invalid request to unpack with offset of {from} and limit of {len}."))
}

/// Reads up to `limit` values. With a limit, where the next one begins is returned first: -1 at the end.
fn unpack(lua: &Lua, args: &MultiValue, limit: usize, from: i64, name: &str) -> Answer {
    let input = text(lua, args, 1, name)?;
    let input = input.as_bytes();
    let Some(start) = usize::try_from(from).ok().filter(|at| *at <= input.len()) else {
        let why = format!("Start offset {from} greater than input length {}.", input.len());
        return Err(if from < 0 { negative(from, input.len()) } else { Raise::Here(why) });
    };
    let all = limit == usize::MAX;
    let mut reader = Reader { lua, toil: Toil::of(lua), input: &input, at: start };
    let mut values = MultiValue::new();
    while reader.at < input.len() && values.len() < limit {
        reader.toil.results(values.len(), FULL)?;
        values.push_back(reader.value(0)?);
    }
    if !all {
        let next = if reader.at < input.len() { reader.at as f64 } else { -1.0 };
        values.push_front(Value::Number(next));
    }
    Ok(values)
}

struct Reader<'a> {
    lua: &'a Lua,
    toil: Toil,
    input: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Raise> {
        let bytes = self.input.get(self.at..self.at.saturating_add(len));
        let bytes = bytes.ok_or_else(|| Raise::Here("Missing bytes in input.".into()))?;
        self.at += len;
        Ok(bytes)
    }

    /// A number of so many bytes, the first one first.
    fn unsigned(&mut self, len: usize) -> Result<u64, Raise> {
        Ok(self.take(len)?.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    fn len(&mut self, bytes: usize) -> Result<usize, Raise> {
        Ok(self.unsigned(bytes)? as usize)
    }

    fn signed(&mut self, len: usize) -> Result<Value, Raise> {
        let unused = 64 - 8 * len as u32;
        Ok(Value::Number(((self.unsigned(len)? << unused).cast_signed() >> unused) as f64))
    }

    fn text(&mut self, len: usize) -> Result<Value, Raise> {
        Ok(Value::String(self.lua.create_string(self.take(len)?)?))
    }

    fn value(&mut self, depth: usize) -> Result<Value, Raise> {
        if depth > READ_DEPTH {
            return Err(Raise::Here("Bad data format in input.".into()));
        }
        self.toil.spend(8)?;
        let kind = self.take(1)?[0];
        Ok(match kind {
            0..=0x7f => Value::Number(f64::from(kind)),
            0xe0..=0xff => Value::Number(f64::from(kind.cast_signed())),
            0x80..=0x8f => self.map(usize::from(kind & 15), depth)?,
            0x90..=0x9f => self.array(usize::from(kind & 15), depth)?,
            0xa0..=0xbf => self.text(usize::from(kind & 31))?,
            0xc0 => Value::Nil,
            0xc2 => Value::Boolean(false),
            0xc3 => Value::Boolean(true),
            0xca => Value::Number(f64::from(f32::from_bits(self.unsigned(4)? as u32))),
            0xcb => Value::Number(f64::from_bits(self.unsigned(8)?)),
            0xcc..=0xcf => Value::Number(self.unsigned(1 << (kind - 0xcc))? as f64),
            0xd0..=0xd3 => self.signed(1 << (kind - 0xd0))?,
            0xd9 => {
                let len = self.len(1)?;
                self.text(len)?
            }
            0xda => {
                let len = self.len(2)?;
                self.text(len)?
            }
            0xdb => {
                let len = self.len(4)?;
                self.text(len)?
            }
            0xdc | 0xdd => {
                let len = self.len(2 << (kind - 0xdc))?;
                self.array(len, depth)?
            }
            0xde | 0xdf => {
                let len = self.len(2 << (kind - 0xde))?;
                self.map(len, depth)?
            }
            _ => return Err(Raise::Here("Bad data format in input.".into())),
        })
    }

    fn array(&mut self, len: usize, depth: usize) -> Result<Value, Raise> {
        let table = self.lua.create_table()?;
        for at in 1..=len {
            table.raw_set(at, self.value(depth + 1)?)?;
        }
        Ok(Value::Table(table))
    }

    fn map(&mut self, len: usize, depth: usize) -> Result<Value, Raise> {
        let table = self.lua.create_table()?;
        for _ in 0..len {
            let (name, value) = (self.value(depth + 1)?, self.value(depth + 1)?);
            let usable = !matches!(&name, Value::Nil) && !matches!(&name, Value::Number(x) if x.is_nan());
            if usable {
                table.raw_set(name, value)?;
            }
        }
        Ok(Value::Table(table))
    }
}
