//! `struct`: values as bytes in a layout that a format tells.
//! Source: the documentation of the library `struct` for Lua 5.1.

use mlua::{Lua, MultiValue, Table, Value};

use super::{define, number, text};
use crate::script::raise::{Answer, Raise, bad_argument, one};
use crate::script::watch::Toil;

/// The largest integer, and what alignment `!` means by itself, in bytes.
const MAX_INT: usize = 32;
const MAX_ALIGN: usize = 8;

/// The global table `struct`.
pub fn library(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    define(lua, &table, "pack", pack)?;
    define(lua, &table, "unpack", unpack)?;
    define(lua, &table, "size", size)?;
    Ok(table)
}

/// Reads a format, option by option.
struct Format<'a> {
    text: &'a [u8],
    at: usize,
    little: bool,
    align: usize,
    function: &'static str,
}

/// What an option stands for.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Int {
        signed: bool,
    },
    Float,
    /// As many bytes as are told.
    Chars,
    /// Bytes up to a NUL.
    Text,
    Pad,
    /// Says something of what follows.
    Nothing,
}

impl<'a> Format<'a> {
    fn new(text: &'a [u8], function: &'static str) -> Self {
        Self { text, at: 0, little: cfg!(target_endian = "little"), align: 1, function }
    }

    fn digits(&mut self) -> Result<Option<usize>, Raise> {
        let start = self.at;
        let mut n = 0usize;
        while let Some(digit) = self.text.get(self.at).filter(|b| b.is_ascii_digit()) {
            let more = n.checked_mul(10).and_then(|n| n.checked_add(usize::from(digit - b'0')));
            n = more
                .filter(|n| i32::try_from(*n).is_ok())
                .ok_or_else(|| Raise::Here("integral size overflow".into()))?;
            self.at += 1;
        }
        Ok((self.at > start).then_some(n))
    }

    fn int_size(&mut self) -> Result<usize, Raise> {
        let size = self.digits()?.unwrap_or(4);
        if size > MAX_INT {
            return Err(Raise::Here(format!("integral size {size} is larger than limit of {MAX_INT}")));
        }
        Ok(size)
    }

    /// The next option with its size in bytes.
    fn next(&mut self) -> Result<Option<(u8, Kind, usize)>, Raise> {
        let Some(&option) = self.text.get(self.at) else { return Ok(None) };
        self.at += 1;
        let int = |signed, size| (Kind::Int { signed }, size);
        let (kind, size) = match option {
            b'b' => int(true, 1),
            b'B' => int(false, 1),
            b'h' => int(true, 2),
            b'H' => int(false, 2),
            b'l' => int(true, 8),
            b'L' | b'T' => int(false, 8),
            b'i' => int(true, self.int_size()?),
            b'I' => int(false, self.int_size()?),
            b'f' => (Kind::Float, 4),
            b'd' | b'n' => (Kind::Float, 8),
            b'c' => (Kind::Chars, self.digits()?.unwrap_or(1)),
            b's' => (Kind::Text, 0),
            b'x' => (Kind::Pad, 1),
            b' ' => (Kind::Nothing, 0),
            b'<' | b'>' => {
                self.little = option == b'<';
                (Kind::Nothing, 0)
            }
            b'!' => {
                let align = self.digits()?.unwrap_or(MAX_ALIGN);
                if !align.is_power_of_two() {
                    return Err(Raise::Here(format!("alignment {align} is not a power of 2")));
                }
                self.align = align;
                (Kind::Nothing, 0)
            }
            _ => {
                let why = format!("invalid format option '{}'", char::from(option));
                return Err(bad_argument(1, self.function, &why));
            }
        };
        Ok(Some((option, kind, size)))
    }

    /// Bytes to fill in front of a value, so that it begins where it is aligned.
    fn padding(&self, kind: Kind, size: usize, at: usize) -> usize {
        let align = size.min(self.align);
        let aligned = matches!(kind, Kind::Int { .. } | Kind::Float) && align > 1 && align.is_power_of_two();
        if aligned { at.wrapping_neg() & (align - 1) } else { 0 }
    }
}

fn pack(lua: &Lua, args: MultiValue) -> Answer {
    let layout = text(lua, &args, 1, "pack")?.as_bytes().to_vec();
    let mut format = Format::new(&layout, "pack");
    let (toil, mut out, mut at) = (Toil::of(lua), Vec::new(), 2);
    while let Some((_, kind, size)) = format.next()? {
        toil.add(&out, 0)?;
        let fill = format.padding(kind, size, out.len());
        out.resize(out.len() + fill, 0);
        match kind {
            Kind::Nothing => continue,
            Kind::Pad => {
                out.push(0);
                continue;
            }
            Kind::Int { .. } => {
                let x = packed_number(lua, &args, at)?;
                let whole = if x < 0.0 { (x as i64).cast_unsigned() } else { x as u64 };
                push_int(&mut out, whole, size, format.little);
            }
            Kind::Float => {
                let x = packed_number(lua, &args, at)?;
                let mut bytes =
                    if size == 4 { (x as f32).to_le_bytes().to_vec() } else { x.to_le_bytes().to_vec() };
                if !format.little {
                    bytes.reverse();
                }
                out.extend(bytes);
            }
            Kind::Chars | Kind::Text => {
                let value = packed_text(lua, &args, at)?;
                let bytes = value.as_bytes();
                let size = if kind == Kind::Text || size == 0 { bytes.len() } else { size };
                if bytes.len() < size {
                    return Err(bad_argument(at + 1, "pack", "string too short"));
                }
                toil.add(&out, size)?;
                out.extend_from_slice(&bytes[..size]);
                if kind == Kind::Text {
                    out.push(0);
                }
            }
        }
        at += 1;
    }
    one(lua, lua.create_string(out)?)
}

/// A missing argument is nil here.
fn packed_number(lua: &Lua, args: &MultiValue, at: usize) -> Result<f64, Raise> {
    if args.len() < at {
        return Err(bad_argument(at, "pack", "number expected, got nil"));
    }
    number(lua, args, at, "pack")
}

fn packed_text(lua: &Lua, args: &MultiValue, at: usize) -> Result<mlua::String, Raise> {
    if args.len() < at {
        return Err(bad_argument(at, "pack", "string expected, got nil"));
    }
    text(lua, args, at, "pack")
}

fn push_int(out: &mut Vec<u8>, value: u64, size: usize, little: bool) {
    let start = out.len();
    // Beyond eight bytes nothing is left of the number.
    out.extend((0..size).map(|at| if at < 8 { (value >> (8 * at)) as u8 } else { 0 }));
    if !little {
        out[start..].reverse();
    }
}

fn unpack(lua: &Lua, args: MultiValue) -> Answer {
    let layout = text(lua, &args, 1, "unpack")?.as_bytes().to_vec();
    let data = text(lua, &args, 2, "unpack")?;
    let data = data.as_bytes();
    let from = if args.len() > 2 { number(lua, &args, 3, "unpack")? } else { 1.0 };
    if from < 1.0 {
        return Err(bad_argument(3, "unpack", "offset must be 1 or greater"));
    }
    let mut at = from as usize - 1;
    let short = || bad_argument(2, "unpack", "data string too short");
    let mut format = Format::new(&layout, "unpack");
    let (toil, mut values) = (Toil::of(lua), MultiValue::new());
    while let Some((_, kind, size)) = format.next()? {
        toil.results(values.len(), "too many results")?;
        at = at.saturating_add(format.padding(kind, size, at));
        let fixed =
            |size: usize| -> Result<&[u8], Raise> { data.get(at..at.saturating_add(size)).ok_or_else(short) };
        let (value, used) = match kind {
            Kind::Nothing => continue,
            Kind::Pad => {
                fixed(1)?;
                at += 1;
                continue;
            }
            Kind::Int { signed } => (Value::Number(int_of(fixed(size)?, format.little, signed)), size),
            Kind::Float => (Value::Number(float_of(fixed(size)?, format.little)), size),
            Kind::Chars => {
                let size = if size > 0 { size } else { told_size(&mut values)? };
                (Value::String(lua.create_string(fixed(size)?)?), size)
            }
            Kind::Text => {
                let rest = data.get(at..).unwrap_or_default();
                let Some(end) = memchr::memchr(0, rest) else {
                    return Err(Raise::Here("unfinished string in data".into()));
                };
                (Value::String(lua.create_string(&rest[..end])?), end + 1)
            }
        };
        values.push_back(value);
        at += used;
    }
    values.push_back(Value::Number((at + 1) as f64));
    Ok(values)
}

/// `c0`: the number before says how long it is, and is taken back.
fn told_size(values: &mut MultiValue) -> Result<usize, Raise> {
    match values.pop_back() {
        Some(Value::Number(x)) if x >= 0.0 => Ok(x as usize),
        _ => Err(Raise::Here("format 'c0' needs a previous size".into())),
    }
}

fn int_of(bytes: &[u8], little: bool, signed: bool) -> f64 {
    let mut value = 0u64;
    let ordered: Box<dyn Iterator<Item = &u8>> =
        if little { Box::new(bytes.iter().rev()) } else { Box::new(bytes.iter()) };
    for b in ordered {
        value = value << 8 | u64::from(*b);
    }
    if !signed {
        return value as f64;
    }
    let unused = 64 - 8 * bytes.len().min(8) as u32;
    let value = if unused == 64 { 0 } else { (value << unused).cast_signed() >> unused };
    value as f64
}

fn float_of(bytes: &[u8], little: bool) -> f64 {
    let mut bytes = bytes.to_vec();
    if !little {
        bytes.reverse();
    }
    if let Ok(four) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return f64::from(f32::from_le_bytes(four));
    }
    <[u8; 8]>::try_from(bytes.as_slice()).map_or(0.0, f64::from_le_bytes)
}

fn size(lua: &Lua, args: MultiValue) -> Answer {
    let layout = text(lua, &args, 1, "size")?.as_bytes().to_vec();
    let mut format = Format::new(&layout, "size");
    let (toil, mut total) = (Toil::of(lua), 0usize);
    while let Some((option, kind, size)) = format.next()? {
        toil.spend(1)?;
        total = total.saturating_add(format.padding(kind, size, total));
        if kind == Kind::Text || (kind == Kind::Chars && size == 0) {
            let name = if kind == Kind::Text { "s" } else { "c0" };
            debug_assert_eq!(name.as_bytes()[0], option);
            let why = if kind == Kind::Text {
                "option 's' has no fixed size"
            } else {
                "option 'c0' has no fixed size"
            };
            return Err(bad_argument(1, "size", why));
        }
        total = total.saturating_add(size);
    }
    one(lua, total as f64)
}
