//! `cjson`: JSON as text and as tables.
//! Source: the manual of Lua CJSON 2.1; RFC 8259.

use std::cell::RefCell;
use std::rc::Rc;

use mlua::{Lua, MultiValue, Table, Value};

use super::{define, number, text};
use crate::script::number::format_g;
use crate::script::raise::{Answer, Raise, bad_argument, one};
use crate::script::watch::Toil;

/// What scripts can set.
#[derive(Clone, Debug)]
struct Config {
    sparse_convert: bool,
    sparse_ratio: i64,
    sparse_safe: i64,
    encode_depth: i64,
    decode_depth: i64,
    /// Significant digits of numbers.
    precision: i64,
    keep_buffer: bool,
    encode_invalid: Invalid,
    decode_invalid: bool,
}

/// Numbers that JSON has no form for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Invalid {
    Refuse,
    Write,
    Null,
}

/// No value is read or written that is nested deeper, whatever a script sets: both recurse.
const MOST_DEPTH: i64 = 1500;

/// Bytes of a text that are written between two looks.
const PIECE: usize = 64 * 1024;

impl Default for Config {
    fn default() -> Self {
        Self {
            sparse_convert: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_depth: 1000,
            decode_depth: 1000,
            precision: 14,
            keep_buffer: true,
            encode_invalid: Invalid::Refuse,
            decode_invalid: true,
        }
    }
}

type Shared = Rc<RefCell<Config>>;

/// A library with settings of its own.
pub fn library(lua: &Lua) -> mlua::Result<Table> {
    let json = lua.create_table()?;
    let config = Shared::default();
    let c = Rc::clone(&config);
    define(lua, &json, "encode", move |lua, args| encode(lua, &c.borrow(), &args))?;
    let c = Rc::clone(&config);
    define(lua, &json, "decode", move |lua, args| decode(lua, &c.borrow(), &args))?;
    depth_setting(lua, &json, "encode_max_depth", &config, |c| &mut c.encode_depth)?;
    depth_setting(lua, &json, "decode_max_depth", &config, |c| &mut c.decode_depth)?;
    let c = Rc::clone(&config);
    define(lua, &json, "encode_number_precision", move |lua, args| {
        let c = &mut *c.borrow_mut();
        set_int(lua, &args, 1, "encode_number_precision", 1..=14, &mut c.precision)?;
        one(lua, c.precision as f64)
    })?;
    let c = Rc::clone(&config);
    define(lua, &json, "encode_sparse_array", move |lua, args| {
        let c = &mut *c.borrow_mut();
        set_flag(&args, 1, &mut c.sparse_convert);
        set_int(lua, &args, 2, "encode_sparse_array", 0..=i64::from(i32::MAX), &mut c.sparse_ratio)?;
        set_int(lua, &args, 3, "encode_sparse_array", 0..=i64::from(i32::MAX), &mut c.sparse_safe)?;
        let told = [Value::Number(c.sparse_ratio as f64), Value::Number(c.sparse_safe as f64)];
        Ok([Value::Boolean(c.sparse_convert)].into_iter().chain(told).collect())
    })?;
    let c = Rc::clone(&config);
    define(lua, &json, "encode_keep_buffer", move |lua, args| {
        let c = &mut *c.borrow_mut();
        set_flag(&args, 1, &mut c.keep_buffer);
        one(lua, c.keep_buffer)
    })?;
    let c = Rc::clone(&config);
    define(lua, &json, "encode_invalid_numbers", move |lua, args| {
        let c = &mut *c.borrow_mut();
        match args.front() {
            Some(Value::String(word)) if word.as_bytes() == *b"null" => c.encode_invalid = Invalid::Null,
            Some(Value::Boolean(true)) => c.encode_invalid = Invalid::Write,
            Some(Value::Boolean(false)) => c.encode_invalid = Invalid::Refuse,
            _ => {}
        }
        match c.encode_invalid {
            Invalid::Null => one(lua, "null"),
            other => one(lua, other == Invalid::Write),
        }
    })?;
    let c = config;
    define(lua, &json, "decode_invalid_numbers", move |lua, args| {
        let c = &mut *c.borrow_mut();
        set_flag(&args, 1, &mut c.decode_invalid);
        one(lua, c.decode_invalid)
    })?;
    define(lua, &json, "new", |lua, _| one(lua, library(lua)?))?;
    json.raw_set("null", Value::NULL)?;
    json.raw_set("_NAME", "cjson")?;
    json.raw_set("_VERSION", "2.1.0")?;
    Ok(json)
}

fn depth_setting(
    lua: &Lua,
    json: &Table,
    name: &'static str,
    config: &Shared,
    field: fn(&mut Config) -> &mut i64,
) -> mlua::Result<()> {
    let config = Rc::clone(config);
    define(lua, json, name, move |lua, args| {
        let depth = &mut *config.borrow_mut();
        let depth = field(depth);
        set_int(lua, &args, 1, name, 1..=i64::from(i32::MAX), depth)?;
        one(lua, *depth as f64)
    })
}

fn set_flag(args: &MultiValue, at: usize, to: &mut bool) {
    if let Some(Value::Boolean(yes)) = args.get(at - 1) {
        *to = *yes;
    }
}

fn set_int(
    lua: &Lua,
    args: &MultiValue,
    at: usize,
    name: &str,
    range: std::ops::RangeInclusive<i64>,
    to: &mut i64,
) -> Result<(), Raise> {
    if matches!(args.get(at - 1), None | Some(Value::Nil)) {
        return Ok(());
    }
    let n = number(lua, args, at, name)? as i64;
    if !range.contains(&n) {
        let why = format!("expected integer between {} and {}", range.start(), range.end());
        return Err(bad_argument(at, name, &why));
    }
    *to = n;
    Ok(())
}

fn encode(lua: &Lua, config: &Config, args: &MultiValue) -> Answer {
    let [value] = args.iter().collect::<Vec<_>>()[..] else {
        return Err(bad_argument(1, "encode", "expected 1 argument"));
    };
    let mut out = Vec::new();
    write(config, &Toil::of(lua), value, 0, &mut out)?;
    one(lua, lua.create_string(out)?)
}

const ODD_KEY: &str = "table key must be a number or string";

fn refuse(kind: &str, why: &str) -> Raise {
    Raise::Here(format!("Cannot serialise {kind}: {why}"))
}

fn write(config: &Config, toil: &Toil, value: &Value, depth: i64, out: &mut Vec<u8>) -> Result<(), Raise> {
    toil.add(out, 0)?;
    match value {
        Value::String(text) => write_text(toil, &text.as_bytes(), out)?,
        Value::Number(x) => write_number(config, *x, out)?,
        Value::Integer(n) => write_number(config, *n as f64, out)?,
        Value::Boolean(yes) => out.extend_from_slice(if *yes { b"true" } else { b"false" }),
        Value::Nil => out.extend_from_slice(b"null"),
        Value::LightUserData(p) if p.0.is_null() => out.extend_from_slice(b"null"),
        Value::Table(table) => write_table(config, toil, table, depth + 1, out)?,
        other => return Err(refuse(super::type_of(Some(other)), "type not supported")),
    }
    Ok(())
}

fn write_number(config: &Config, x: f64, out: &mut Vec<u8>) -> Result<(), Raise> {
    if !x.is_finite() {
        match config.encode_invalid {
            Invalid::Refuse => return Err(refuse("number", "must not be NaN or Inf")),
            Invalid::Null => {
                out.extend_from_slice(b"null");
                return Ok(());
            }
            Invalid::Write => {}
        }
        let text: &[u8] = if x.is_nan() {
            b"nan"
        } else if x > 0.0 {
            b"Infinity"
        } else {
            b"-Infinity"
        };
        out.extend_from_slice(text);
        return Ok(());
    }
    out.extend_from_slice(format_g(x, config.precision as i32).as_bytes());
    Ok(())
}

fn write_text(toil: &Toil, text: &[u8], out: &mut Vec<u8>) -> Result<(), Raise> {
    out.push(b'"');
    for piece in text.chunks(PIECE) {
        toil.add(out, piece.len())?;
        write_piece(piece, out);
    }
    out.push(b'"');
    Ok(())
}

fn write_piece(text: &[u8], out: &mut Vec<u8>) {
    for b in text {
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'/' => out.extend_from_slice(b"\\/"),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0..=0x1f | 0x7f => out.extend_from_slice(format!("\\u{b:04x}").as_bytes()),
            _ => out.push(*b),
        }
    }
}

fn write_table(
    config: &Config,
    toil: &Toil,
    table: &Table,
    depth: i64,
    out: &mut Vec<u8>,
) -> Result<(), Raise> {
    if depth > config.encode_depth.min(MOST_DEPTH) {
        return Err(Raise::Here(format!("Cannot serialise, excessive nesting ({depth})")));
    }
    if let Some(len) = array_len(config, toil, table)? {
        out.push(b'[');
        for at in 1..=len {
            if at > 1 {
                out.push(b',');
            }
            write(config, toil, &table.raw_get::<Value>(at)?, depth, out)?;
        }
        out.push(b']');
        return Ok(());
    }
    out.push(b'{');
    for (at, pair) in table.pairs::<Value, Value>().enumerate() {
        let (name, value) = pair?;
        if at > 0 {
            out.push(b',');
        }
        match name {
            Value::String(name) => write_text(toil, &name.as_bytes(), out)?,
            Value::Number(_) | Value::Integer(_) => {
                out.push(b'"');
                write(config, toil, &name, depth, out)?;
                out.push(b'"');
            }
            Value::LightUserData(_) => return Err(refuse("userdata", ODD_KEY)),
            other => return Err(refuse(other.type_name(), ODD_KEY)),
        }
        out.push(b':');
        write(config, toil, &value, depth, out)?;
    }
    out.push(b'}');
    Ok(())
}

/// The length of a table that is an array: it has items, at whole numbers from 1 on and at no others, and
/// most of them are there.
fn array_len(config: &Config, toil: &Toil, table: &Table) -> Result<Option<i64>, Raise> {
    let (mut most, mut items) = (0i64, 0i64);
    for pair in table.pairs::<Value, Value>() {
        toil.spend(8)?;
        let at = match pair?.0 {
            Value::Integer(n) => n as f64,
            Value::Number(x) => x,
            _ => return Ok(None),
        };
        if at < 1.0 || at.fract() != 0.0 || at > 9e15 {
            return Ok(None);
        }
        most = most.max(at as i64);
        items += 1;
    }
    let sparse = config.sparse_ratio > 0
        && most > items.saturating_mul(config.sparse_ratio)
        && most > config.sparse_safe;
    if sparse && !config.sparse_convert {
        return Err(refuse("table", "excessively sparse array"));
    }
    Ok((items > 0 && !sparse).then_some(most))
}

fn decode(lua: &Lua, config: &Config, args: &MultiValue) -> Answer {
    if args.len() != 1 {
        return Err(bad_argument(1, "decode", "expected 1 argument"));
    }
    let source = text(lua, args, 1, "decode")?;
    let source = source.as_bytes();
    // As the library does it: two NULs in front mean UTF-16 or UTF-32.
    if source.len() > 1 && (source[0] == 0 || source[1] == 0) {
        return Err(Raise::Here("JSON parser does not support UTF-16 or UTF-32".into()));
    }
    let mut parser = Parser { lua, config, toil: Toil::of(lua), input: &source, at: 0 };
    let token = parser.next()?;
    let value = parser.value(token, 0)?;
    match parser.next()? {
        (Token::End, _) => one(lua, value),
        found => Err(unexpected("the end", &found)),
    }
}

enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Text(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    /// What is wrong.
    Wrong(&'static str),
}

impl Token {
    fn name(&self) -> &'static str {
        match self {
            Self::ObjectBegin => "T_OBJ_BEGIN",
            Self::ObjectEnd => "T_OBJ_END",
            Self::ArrayBegin => "T_ARR_BEGIN",
            Self::ArrayEnd => "T_ARR_END",
            Self::Text(_) => "T_STRING",
            Self::Number(_) => "T_NUMBER",
            Self::Boolean(_) => "T_BOOLEAN",
            Self::Null => "T_NULL",
            Self::Colon => "T_COLON",
            Self::Comma => "T_COMMA",
            Self::End => "T_END",
            Self::Wrong(what) => what,
        }
    }
}

/// A token, and where it begins.
type Found = (Token, usize);

fn unexpected(wanted: &str, (token, at): &Found) -> Raise {
    Raise::Here(format!("Expected {wanted} but found {} at character {}", token.name(), at + 1))
}

struct Parser<'a> {
    lua: &'a Lua,
    config: &'a Config,
    toil: Toil,
    input: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn next(&mut self) -> Result<Found, Raise> {
        while matches!(self.input.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        let start = self.at;
        let Some(&first) = self.input.get(start) else { return Ok((Token::End, start)) };
        let single = match first {
            b'{' => Some(Token::ObjectBegin),
            b'}' => Some(Token::ObjectEnd),
            b'[' => Some(Token::ArrayBegin),
            b']' => Some(Token::ArrayEnd),
            b':' => Some(Token::Colon),
            b',' => Some(Token::Comma),
            _ => None,
        };
        if let Some(token) = single {
            self.at += 1;
            return Ok((token, start));
        }
        if first == b'"' {
            return Ok(self.text(start));
        }
        for (word, token) in
            [("true", Token::Boolean(true)), ("false", Token::Boolean(false)), ("null", Token::Null)]
        {
            if self.input[start..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok((token, start));
            }
        }
        Ok((self.number(start), start))
    }

    fn number(&mut self, start: usize) -> Token {
        let rest = &self.input[start..];
        let len =
            rest.iter().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')).count();
        let word = &rest[..len];
        let (sign, digits) = match word.first() {
            Some(b'-') => (-1.0, &word[1..]),
            _ => (1.0, word),
        };
        let special = |word: &[u8]| {
            let starts =
                |w: &str| word.len() >= w.len() && word[..w.len()].eq_ignore_ascii_case(w.as_bytes());
            if starts("infinity") {
                Some((f64::INFINITY, 8))
            } else if starts("inf") {
                Some((f64::INFINITY, 3))
            } else if starts("nan") {
                Some((f64::NAN, 3))
            } else {
                None
            }
        };
        if self.config.decode_invalid
            && let Some((x, len)) = special(digits)
        {
            self.at = start + len + (word.len() - digits.len());
            return Token::Number(sign * x);
        }
        if !digits.first().is_some_and(u8::is_ascii_digit) {
            return Token::Wrong("invalid token");
        }
        if let Some(hex) = digits.strip_prefix(b"0x").or(digits.strip_prefix(b"0X")) {
            let len = hex.iter().take_while(|b| b.is_ascii_hexdigit()).count();
            if !self.config.decode_invalid || len == 0 {
                return Token::Wrong("invalid number");
            }
            let value = hex[..len]
                .iter()
                .fold(0.0, |n: f64, b| n * 16.0 + f64::from(char::from(*b).to_digit(16).unwrap_or(0)));
            self.at = start + (word.len() - hex.len()) + len;
            return Token::Number(sign * value);
        }
        if digits.len() > 1 && digits[0] == b'0' && digits[1].is_ascii_digit() && !self.config.decode_invalid
        {
            return Token::Wrong("invalid number");
        }
        let len = number_len(digits);
        let text = String::from_utf8_lossy(&digits[..len]);
        self.at = start + (word.len() - digits.len()) + len;
        text.parse().map_or(Token::Wrong("invalid number"), |x: f64| Token::Number(sign * x))
    }

    fn text(&mut self, start: usize) -> Found {
        let mut out = Vec::new();
        let mut at = start + 1;
        loop {
            let Some(&b) = self.input.get(at) else { return (Token::Wrong("unexpected end of string"), at) };
            match b {
                b'"' => break,
                b'\\' => match self.escape(at, &mut out) {
                    Ok(len) => at += len,
                    Err(what) => return (Token::Wrong(what), at),
                },
                _ => {
                    out.push(b);
                    at += 1;
                }
            }
        }
        self.at = at + 1;
        (Token::Text(out), start)
    }

    /// Reads an escape at `at`; returns how long it is.
    fn escape(&self, at: usize, out: &mut Vec<u8>) -> Result<usize, &'static str> {
        let plain = match self.input.get(at + 1) {
            Some(b @ (b'"' | b'\\' | b'/')) => *b,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => return self.unicode(at, out),
            _ => return Err("invalid escape code"),
        };
        out.push(plain);
        Ok(2)
    }

    fn unicode(&self, at: usize, out: &mut Vec<u8>) -> Result<usize, &'static str> {
        const WRONG: &str = "invalid unicode escape code";
        let unit = |at: usize| {
            let digits = self.input.get(at + 2..at + 6).filter(|_| self.input[at..].starts_with(b"\\u"))?;
            digits.iter().try_fold(0, |n, b| Some(n * 16 + char::from(*b).to_digit(16)?))
        };
        let first = unit(at).ok_or(WRONG)?;
        let (code, len) = match first {
            0xd800..0xdc00 => {
                let second = unit(at + 6).filter(|u| (0xdc00..0xe000).contains(u)).ok_or(WRONG)?;
                (0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00), 12)
            }
            code => (code, 6),
        };
        let c = char::from_u32(code).ok_or(WRONG)?;
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(len)
    }

    fn value(&mut self, found: Found, depth: i64) -> Result<Value, Raise> {
        // Of a token that is wrong the place is behind what was read.
        self.toil.spend(8 + self.at.saturating_sub(found.1) / 16)?;
        Ok(match found.0 {
            Token::Text(text) => Value::String(self.lua.create_string(text)?),
            Token::Number(x) => Value::Number(x),
            Token::Boolean(yes) => Value::Boolean(yes),
            Token::Null => Value::NULL,
            Token::ObjectBegin => Value::Table(self.object(depth + 1)?),
            Token::ArrayBegin => Value::Table(self.array(depth + 1)?),
            _ => return Err(unexpected("value", &found)),
        })
    }

    fn descend(&self, depth: i64) -> Result<(), Raise> {
        if depth > self.config.decode_depth.min(MOST_DEPTH) {
            let at = self.at;
            return Err(Raise::Here(format!(
                "Found too many nested data structures ({depth}) at character {at}"
            )));
        }
        Ok(())
    }

    fn object(&mut self, depth: i64) -> Result<Table, Raise> {
        self.descend(depth)?;
        let table = self.lua.create_table()?;
        let mut found = self.next()?;
        if matches!(found.0, Token::ObjectEnd) {
            return Ok(table);
        }
        loop {
            let Token::Text(name) = found.0 else { return Err(unexpected("object key string", &found)) };
            let colon = self.next()?;
            if !matches!(colon.0, Token::Colon) {
                return Err(unexpected("colon", &colon));
            }
            let token = self.next()?;
            let value = self.value(token, depth)?;
            table.raw_set(self.lua.create_string(name)?, value)?;
            let end = self.next()?;
            match end.0 {
                Token::ObjectEnd => return Ok(table),
                Token::Comma => found = self.next()?,
                _ => return Err(unexpected("comma or object end", &end)),
            }
        }
    }

    fn array(&mut self, depth: i64) -> Result<Table, Raise> {
        self.descend(depth)?;
        let table = self.lua.create_table()?;
        let mut found = self.next()?;
        if matches!(found.0, Token::ArrayEnd) {
            return Ok(table);
        }
        for at in 1.. {
            table.raw_set(at, self.value(found, depth)?)?;
            let end = self.next()?;
            match end.0 {
                Token::ArrayEnd => break,
                Token::Comma => found = self.next()?,
                _ => return Err(unexpected("comma or array end", &end)),
            }
        }
        Ok(table)
    }
}

/// The length of the number that a text begins with.
fn number_len(text: &[u8]) -> usize {
    let digits = |from: usize| text[from.min(text.len())..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut len = digits(0);
    if text.get(len) == Some(&b'.') {
        len += 1 + digits(len + 1);
    }
    if matches!(text.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(len + 1), Some(b'+' | b'-')));
        let exponent = digits(len + 1 + sign);
        if exponent > 0 {
            len += 1 + sign + exponent;
        }
    }
    len
}
