//! What can be told of a script's keys by reading it: whether every command that it can ever run names declared keys
//! alone, so that it needs no locks but theirs.
//!
//! This never guesses. A script is proven only if each of its calls stands there as `redis.call('name', ...)`, and
//! nothing that it contains could change KEYS, `redis`, or a name that stands for one of the keys. Everything that
//! might do so (functions, environments, code made at run time) means that the script is not proven; so do forms that
//! are merely unusual.

use std::ops::Range;

/// One piece of Lua.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A name or a keyword.
    Name(&'a [u8]),
    /// The inside of a string without escapes.
    Text(&'a [u8]),
    /// A number, or a string with escapes.
    Other,
    /// An operator or a bracket.
    Sign(&'a [u8]),
}

/// An argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument<'a> {
    /// One of the declared keys, or all of them.
    Key,
    /// This text.
    Text(&'a [u8]),
    /// Anything.
    Any,
}

/// What makes or reaches code or tables in ways that are not read here.
const BEYOND: [&[u8]; 12] = [
    b"function",
    b"_G",
    b"getfenv",
    b"setfenv",
    b"getmetatable",
    b"setmetatable",
    b"load",
    b"loadstring",
    b"rawget",
    b"rawset",
    b"coroutine",
    b"newproxy",
];

/// The arguments of each call of a script, the name of the command first. `None`: they cannot be told.
pub fn calls(code: &[u8]) -> Option<Vec<Vec<Argument<'_>>>> {
    let tokens = tokens(code)?;
    let (named, defined) = definitions(&tokens);
    let reader = Reader { tokens, named };
    let mut depth = 0_i32;
    let mut calls = Vec::new();
    for at in 0..reader.tokens.len() {
        match reader.tokens[at] {
            Token::Sign(b"(" | b"{") => depth += 1,
            Token::Sign(b")" | b"}") => depth -= 1,
            Token::Name(name) if BEYOND.contains(&name) => return None,
            Token::Name(b"ipairs" | b"unpack") if reader.token(at + 1) != Some(Token::Sign(b"(")) => {
                return None;
            }
            Token::Name(b"redis") => {
                let field = reader.field_of_redis(at)?;
                if field == b"call" || field == b"pcall" {
                    calls.push(reader.arguments(at + 3)?);
                }
            }
            Token::Name(_) if defined.iter().any(|part| part.contains(&at)) => {}
            Token::Name(b"KEYS") if !reader.only_reads_keys(at, depth) => return None,
            Token::Name(name) if reader.named.contains(&name) && !reader.only_reads(at, at, depth) => {
                return None;
            }
            _ => {}
        }
    }
    Some(calls)
}

/// Names that are given keys, by `local` or by a loop over KEYS, and where that is done.
fn definitions<'a>(tokens: &[Token<'a>]) -> (Vec<&'a [u8]>, Vec<Range<usize>>) {
    let (mut named, mut places) = (Vec::new(), Vec::new());
    for at in 0..tokens.len() {
        let found = local_keys(&tokens[at..]).or_else(|| loop_over_keys(&tokens[at..]));
        if let Some((names, len)) = found {
            named.extend(names);
            places.push(at..at + len);
        }
    }
    (named, places)
}

/// `local a, b = KEYS[1], KEYS[2]`: the names, and how many tokens that takes.
fn local_keys<'a>(tokens: &[Token<'a>]) -> Option<(Vec<&'a [u8]>, usize)> {
    let (Token::Name(b"local"), mut at) = (*tokens.first()?, 1) else { return None };
    let mut names = Vec::new();
    loop {
        let Token::Name(name) = *tokens.get(at)? else { return None };
        names.push(name);
        at += 2;
        match *tokens.get(at - 1)? {
            Token::Sign(b",") => {}
            Token::Sign(b"=") => break,
            _ => return None,
        }
    }
    for left in (0..names.len()).rev() {
        at += key_at(&tokens[at..])?;
        if left > 0 {
            (*tokens.get(at)? == Token::Sign(b",")).then_some(())?;
            at += 1;
        }
    }
    ends_expression(tokens.get(at)).then_some((names, at))
}

/// `for _, key in ipairs(KEYS) do`: the name, and how many tokens that takes.
fn loop_over_keys<'a>(tokens: &[Token<'a>]) -> Option<(Vec<&'a [u8]>, usize)> {
    let [Token::Name(b"for"), Token::Name(_), Token::Sign(b","), Token::Name(name), rest @ ..] = tokens
    else {
        return None;
    };
    let over = [
        Token::Name(b"in"),
        Token::Name(b"ipairs"),
        Token::Sign(b"("),
        Token::Name(b"KEYS"),
        Token::Sign(b")"),
        Token::Name(b"do"),
    ];
    rest.starts_with(&over).then_some((vec![*name], 4 + over.len()))
}

/// How many tokens `KEYS[...]` takes, if it stands here. What is in the brackets is no matter.
fn key_at(tokens: &[Token<'_>]) -> Option<usize> {
    let [Token::Name(b"KEYS"), Token::Sign(b"["), rest @ ..] = tokens else { return None };
    let mut depth = 1;
    for (at, token) in rest.iter().enumerate() {
        match token {
            Token::Sign(b"[") => depth += 1,
            Token::Sign(b"]") => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 3);
        }
    }
    None
}

/// Whether a value ends where this token follows: at the next statement.
fn ends_expression(next: Option<&Token<'_>>) -> bool {
    match next {
        None | Some(Token::Sign(b";")) => true,
        Some(Token::Name(name)) => !matches!(*name, b"and" | b"or"),
        Some(_) => false,
    }
}

struct Reader<'a> {
    tokens: Vec<Token<'a>>,
    named: Vec<&'a [u8]>,
}

impl<'a> Reader<'a> {
    fn token(&self, at: usize) -> Option<Token<'a>> {
        self.tokens.get(at).copied()
    }

    /// The `field` of `redis.field` at this place, if it is used and not changed.
    fn field_of_redis(&self, at: usize) -> Option<&'a [u8]> {
        let before = at.checked_sub(1).and_then(|at| self.token(at));
        if matches!(before, Some(Token::Sign(b"." | b":") | Token::Name(b"local" | b"for"))) {
            return None;
        }
        let (Token::Sign(b"."), Token::Name(field)) = (self.token(at + 1)?, self.token(at + 2)?) else {
            return None;
        };
        let next = self.token(at + 3);
        match field {
            b"call" | b"pcall" => (next == Some(Token::Sign(b"("))).then_some(field),
            _ => (!matches!(next, Some(Token::Sign(b"=" | b"." | b"[" | b",")))).then_some(field),
        }
    }

    /// The arguments between the bracket at this place and its end.
    fn arguments(&self, open: usize) -> Option<Vec<Argument<'a>>> {
        let mut arguments = Vec::new();
        let (mut from, mut at, mut depth) = (open + 1, open + 1, 0);
        loop {
            match self.token(at)? {
                Token::Sign(b"(" | b"{" | b"[") => depth += 1,
                Token::Sign(b",") if depth == 0 => {
                    arguments.push(self.argument(from, at));
                    from = at + 1;
                }
                Token::Sign(b")" | b"}" | b"]") if depth > 0 => depth -= 1,
                Token::Sign(b")") => {
                    arguments.push(self.argument(from, at));
                    return Some(arguments);
                }
                _ => {}
            }
            at += 1;
        }
    }

    fn argument(&self, from: usize, to: usize) -> Argument<'a> {
        match &self.tokens[from..to] {
            [Token::Text(text)] => Argument::Text(text),
            [Token::Name(name)] if self.named.contains(name) => Argument::Key,
            [Token::Name(b"unpack"), Token::Sign(b"("), Token::Name(b"KEYS"), Token::Sign(b")")] => {
                Argument::Key
            }
            tokens if key_at(tokens) == Some(tokens.len()) => Argument::Key,
            _ => Argument::Any,
        }
    }

    /// Whether KEYS at this place is only read.
    fn only_reads_keys(&self, at: usize, depth: i32) -> bool {
        let before = |back: usize| at.checked_sub(back).and_then(|at| self.token(at));
        match (before(1), self.token(at + 1)) {
            (Some(Token::Sign(b"." | b":") | Token::Name(b"local" | b"for")), _) => false,
            (Some(Token::Sign(b"#")), next) => next != Some(Token::Sign(b"=")),
            (Some(Token::Sign(b"(")), Some(Token::Sign(b")"))) => {
                matches!(before(2), Some(Token::Name(b"ipairs" | b"unpack")))
            }
            (_, Some(Token::Sign(b"["))) => {
                key_at(&self.tokens[at..]).is_some_and(|len| self.only_reads(at, at + len - 1, depth))
            }
            _ => false,
        }
    }

    /// Whether what stands from `first` to `last` is read there, and not changed.
    fn only_reads(&self, first: usize, last: usize, depth: i32) -> bool {
        let next = self.token(last + 1);
        // What is called on it, or stands in it, is not looked at.
        if matches!(next, Some(Token::Sign(b"." | b":" | b"["))) {
            return false;
        }
        if depth > 0 {
            // There is no statement within brackets where there is no function.
            return true;
        }
        if matches!(next, Some(Token::Sign(b"=" | b","))) {
            return false;
        }
        match first.checked_sub(1).and_then(|at| self.token(at)) {
            Some(Token::Sign(sign)) => !matches!(sign, b"," | b";" | b"." | b":" | b")" | b"]" | b"}"),
            Some(Token::Name(word)) => {
                matches!(word, b"return" | b"if" | b"elseif" | b"while" | b"until" | b"and" | b"or" | b"not")
            }
            _ => false,
        }
    }
}

/// The tokens of a script; `None` where they cannot be told.
fn tokens(code: &[u8]) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < code.len() {
        let rest = &code[at..];
        let (len, token) = match rest[0] {
            b' ' | b'\t' | b'\r' | b'\n' | 11 | 12 => (1, None),
            b'-' if rest.starts_with(b"--") => (comment(rest)?, None),
            b'[' if long_level(rest).is_some() => (long_text(rest)?, Some(Token::Other)),
            quote @ (b'"' | b'\'') => {
                let (len, plain) = text(rest, quote)?;
                (len, Some(if plain { Token::Text(&rest[1..len - 1]) } else { Token::Other }))
            }
            c if c.is_ascii_digit() => (number(rest), Some(Token::Other)),
            c if c.is_ascii_alphabetic() || c == b'_' => {
                let len = word(rest);
                (len, Some(Token::Name(&rest[..len])))
            }
            c if c.is_ascii_graphic() => {
                let len = sign(rest);
                (len, Some(Token::Sign(&rest[..len])))
            }
            _ => return None,
        };
        tokens.extend(token);
        at += len;
    }
    Some(tokens)
}

fn word(rest: &[u8]) -> usize {
    rest.iter().position(|c| !c.is_ascii_alphanumeric() && *c != b'_').unwrap_or(rest.len())
}

/// Takes more than a number where that is malformed: the compiler refuses it in any case.
fn number(rest: &[u8]) -> usize {
    let ends = |c: &u8| !c.is_ascii_alphanumeric() && *c != b'.';
    let len = rest.iter().position(ends).unwrap_or(rest.len());
    // Two dots join texts.
    rest[..len].windows(2).position(|two| two == b"..").unwrap_or(len)
}

fn sign(rest: &[u8]) -> usize {
    const LONG: [&[u8]; 6] = [b"...", b"..", b"==", b"~=", b"<=", b">="];
    LONG.iter().find(|sign| rest.starts_with(sign)).map_or(1, |sign| sign.len())
}

/// How long a text in quotes is, and whether it has no escapes.
fn text(rest: &[u8], quote: u8) -> Option<(usize, bool)> {
    let (mut at, mut plain) = (1, true);
    loop {
        match *rest.get(at)? {
            b'\\' => {
                plain = false;
                at += 2;
            }
            b'\n' | b'\r' => return None,
            c if c == quote => return Some((at + 1, plain)),
            _ => at += 1,
        }
    }
}

/// How many `=` a long bracket has that opens here.
fn long_level(rest: &[u8]) -> Option<usize> {
    let level = rest.iter().skip(1).take_while(|c| **c == b'=').count();
    (rest.first() == Some(&b'[') && rest.get(level + 1) == Some(&b'[')).then_some(level)
}

fn long_text(rest: &[u8]) -> Option<usize> {
    let level = long_level(rest)?;
    let mut end = vec![b']'];
    end.resize(level + 1, b'=');
    end.push(b']');
    memchr::memmem::find(rest, &end).map(|at| at + end.len())
}

fn comment(rest: &[u8]) -> Option<usize> {
    if long_level(&rest[2..]).is_some() {
        return long_text(&rest[2..]).map(|len| len + 2);
    }
    Some(memchr::memchr(b'\n', rest).unwrap_or(rest.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_proven(code: &str) -> bool {
        calls(code.as_bytes()).is_some()
    }

    #[test]
    fn arguments_are_told_apart() {
        let code = "local k = KEYS[ 1 ]\nlocal v = redis.call('GET', k) -- ')'\n\
                    redis.pcall(\"SET\", KEYS[#KEYS], k .. ':x', [[long]], {1, 2})\nreturn v";
        let told = calls(code.as_bytes()).expect("a plain script");
        let (text, key, any) = (|t: &'static str| Argument::Text(t.as_bytes()), Argument::Key, Argument::Any);
        assert_eq!(told, [vec![text("GET"), key], vec![text("SET"), key, any, any, any]]);
        let all = "for _, key in ipairs(KEYS) do redis.call('DEL', key) end redis.call('MGET', unpack(KEYS))";
        assert_eq!(calls(all.as_bytes()), Some(vec![vec![text("DEL"), key], vec![text("MGET"), key]]));
        assert_eq!(calls(b"return redis.sha1hex(KEYS[1])"), Some(vec![]));
    }

    #[test]
    fn common_scripts_are_proven() {
        for code in [
            "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end",
            "for i = 1, #KEYS do redis.call('INCR', KEYS[i]) end return redis.status_reply('OK')",
            "local n = tonumber(redis.call('INCR', KEYS[1])) if n == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end return n",
            "return KEYS[1]",
            "return {KEYS[1], #KEYS}",
            "local a, b = KEYS[1], KEYS[2] return redis.call('RPOPLPUSH', a, b)",
            "local a = KEYS[1] do local a = KEYS[2] redis.call('GET', a) end return redis.call('GET', a)",
        ] {
            assert!(is_proven(code), "{code}");
        }
    }

    /// Each of these reaches another key than those that it declares.
    #[test]
    fn what_could_change_keys_is_not_proven() {
        for code in [
            "KEYS[1] = 'x' redis.call('GET', KEYS[1])",
            "local a a, KEYS[1] = 1, 'x' redis.call('GET', KEYS[1])",
            "KEYS[1], a = 'x', 2 redis.call('GET', KEYS[1])",
            "KEYS = {'x'} redis.call('GET', KEYS[1])",
            "local KEYS = {'x'} redis.call('GET', KEYS[1])",
            "local t = KEYS t[1] = 'x' redis.call('GET', KEYS[1])",
            "table.insert(KEYS, 1, 'x') redis.call('GET', KEYS[1])",
            "for i, KEYS in ipairs({{'x'}}) do redis.call('GET', KEYS[1]) end",
            "local call = redis.call call('GET', 'x')",
            "redis['call']('GET', 'x')",
            "local r = redis r.call('GET', 'x')",
            "pcall(redis.call, 'GET', 'x')",
            "redis.call{'GET'}",
            "redis.call 'PING'",
            "local redis = {call = redis.call} redis.call('GET', KEYS[1])",
            "(function() KEYS[1] = 'x' end)() redis.call('GET', KEYS[1])",
            "loadstring(\"KEYS[1] = 'x'\")() redis.call('GET', KEYS[1])",
            "setmetatable(KEYS, {}) redis.call('GET', KEYS[1])",
            "local k = KEYS[1] k = 'x' redis.call('GET', k)",
            "local k = KEYS[1] for k = 1, 3 do redis.call('GET', k) end",
            "local k = KEYS[1] local k = 'x' redis.call('GET', k)",
            "local k = KEYS[1] local a, k = 1, 'x' redis.call('GET', k)",
            "local k = KEYS[1] do local k, j = 'x', 1 redis.call('GET', k) end",
            "for _, k in ipairs(KEYS) do k = 'x' redis.call('GET', k) end",
            "local k = KEYS[1] for i, k in pairs({'x'}) do redis.call('GET', k) end",
            "local k = 'x' do local k = KEYS[1] end redis.call('GET', k)",
            "local ipairs = pairs for _, k in ipairs(KEYS) do redis.call('GET', k) end",
            "local unpack = tostring redis.call('MGET', unpack(KEYS))",
            "_G.KEYS = {'x'} redis.call('GET', KEYS[1])",
        ] {
            assert!(!is_proven(code), "{code}");
        }
    }

    #[test]
    fn names_for_more_than_a_key_stand_for_anything() {
        for code in [
            "local k = KEYS[1] .. 'x' redis.call('GET', k)",
            "local k = KEYS[1] or 'x' redis.call('GET', k)",
            "local k = ARGV[1] redis.call('GET', k)",
            "redis.call('GET', KEYS[1] .. 'x')",
            "redis.call('GET', (KEYS[1]):sub(1))",
        ] {
            let told = calls(code.as_bytes());
            assert!(told.is_none_or(|calls| calls[0][1] == Argument::Any), "{code}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole =
            b"local k=KEYS[1]--[==[x]==]\nredis.call('a\\'b',k,[[y]],1..2,0x1F,\"z\") return #KEYS ~= 3 ...";
        for from in 0..whole.len() {
            for to in from..whole.len() {
                let _ = calls(&whole[from..to]);
            }
        }
        assert_eq!(calls(b"\xff\x00"), None);
    }
}
