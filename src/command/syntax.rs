//! The arguments of a command as COMMAND DOCS describes them, read from the syntax that the
//! command's row states: `[x]` is optional, `<a | b>` one of several, `x [x ...]` one or more,
//! words in upper case are tokens. A type follows from the name, unless it is told as in `timeout:double`.

/// One argument, or a group of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    pub name: String,
    /// As COMMAND DOCS calls it: `key`, `integer`, `oneof`, ...
    pub kind: &'static str,
    /// The word in front of it.
    pub token: Option<String>,
    pub optional: bool,
    pub multiple: bool,
    pub arguments: Vec<Argument>,
}

/// Reads a syntax. Every text gives something: rows are checked by a test, not here.
pub fn arguments(syntax: &str) -> Vec<Argument> {
    let mut spaced = String::new();
    for c in syntax.chars() {
        if "[]<>|".contains(c) {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut reader = Reader { words: &words, at: 0 };
    reader.sequence().0
}

struct Reader<'a> {
    words: &'a [&'a str],
    at: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<String> {
        let word = self.words.get(self.at).map(ToString::to_string);
        self.at += 1;
        word
    }

    fn peek(&self) -> &str {
        self.words.get(self.at).copied().unwrap_or("")
    }

    /// Arguments up to a closing bracket or a bar, and whether they end with `...`.
    fn sequence(&mut self) -> (Vec<Argument>, bool) {
        let mut out: Vec<Argument> = Vec::new();
        let mut token: Option<String> = None;
        let mut repeats = false;
        while !matches!(self.peek(), "" | "]" | ">" | "|") {
            let Some(word) = self.next() else { break };
            match word.as_str() {
                "..." => repeats = true,
                "[" => {
                    let (inner, again) = self.group("]");
                    if again && repeat_last(&mut out, &inner) {
                        continue;
                    }
                    out.extend(token.take().map(pure_token));
                    let mut group = joined(inner);
                    group.optional = true;
                    group.multiple |= again;
                    out.push(group);
                }
                "<" => {
                    let (inner, again) = self.group(">");
                    let mut group = joined(inner);
                    group.multiple |= again;
                    group.token = token.take().or(group.token);
                    out.push(group);
                }
                word if is_token(word) => {
                    out.extend(token.replace(word.to_owned()).map(pure_token));
                }
                word => {
                    let mut argument = plain(word);
                    argument.token = token.take();
                    out.push(argument);
                }
            }
        }
        out.extend(token.map(pure_token));
        (out, repeats)
    }

    /// What stands between brackets: alternatives become one argument.
    fn group(&mut self, end: &str) -> (Vec<Argument>, bool) {
        let (first, mut repeats) = self.sequence();
        let mut alternatives = vec![first];
        while self.peek() == "|" {
            self.at += 1;
            let (next, again) = self.sequence();
            alternatives.push(next);
            repeats |= again;
        }
        if self.peek() == end {
            self.at += 1;
        }
        if alternatives.len() == 1 {
            return (alternatives.swap_remove(0), repeats);
        }
        let arguments: Vec<Argument> = alternatives.into_iter().map(joined).collect();
        (vec![grouped("oneof", arguments)], repeats)
    }
}

/// Marks the last arguments as repeatable if `again` says them once more.
fn repeat_last(out: &mut Vec<Argument>, again: &[Argument]) -> bool {
    let Some(from) = out.len().checked_sub(again.len()) else { return false };
    if again.is_empty() || !out[from..].iter().zip(again).all(|(a, b)| a.name == b.name) {
        return false;
    }
    let mut last = joined(out.split_off(from));
    last.multiple = true;
    out.push(last);
    true
}

/// Several arguments as a block; a single one as it is.
fn joined(mut arguments: Vec<Argument>) -> Argument {
    if arguments.len() == 1 {
        return arguments.swap_remove(0);
    }
    grouped("block", arguments)
}

fn grouped(kind: &'static str, mut arguments: Vec<Argument>) -> Argument {
    let mut token = None;
    // A block is called by the token of its first argument.
    if kind == "block"
        && let Some(first) = arguments.first_mut()
    {
        token = first.token.take();
    }
    let names: Vec<&str> = arguments.iter().map(|a| a.name.as_str()).collect();
    let name = token.as_ref().map_or_else(|| names.join("-"), |t: &String| t.to_ascii_lowercase());
    Argument { name, kind, token, optional: false, multiple: false, arguments }
}

fn pure_token(token: String) -> Argument {
    let name = token.to_ascii_lowercase();
    Argument {
        name,
        kind: "pure-token",
        token: Some(token),
        optional: false,
        multiple: false,
        arguments: vec![],
    }
}

fn plain(word: &str) -> Argument {
    let told = word.split_once(':').and_then(|(name, kind)| {
        let kind = ["double", "integer", "key", "pattern", "string"].into_iter().find(|k| *k == kind)?;
        Some((name, kind))
    });
    let (name, kind) = told.unwrap_or_else(|| (word, kind(word)));
    Argument { name: name.to_owned(), kind, token: None, optional: false, multiple: false, arguments: vec![] }
}

fn is_token(word: &str) -> bool {
    !word.contains(|c: char| c.is_ascii_lowercase())
        && word.contains(|c: char| c.is_ascii_uppercase() || "=~*$".contains(c))
}

/// The type of an argument by its name, as the documentation uses them.
fn kind(name: &str) -> &'static str {
    match name {
        "key" | "key1" | "key2" | "newkey" | "source" | "destination" | "sourcekey" | "destkey" => "key",
        "pattern" => "pattern",
        "score" | "min" | "max" | "longitude" | "latitude" | "radius" => "double",
        "numkeys" | "index" | "seconds" | "milliseconds" | "start" | "stop" | "end" | "offset" | "count"
        | "cursor" | "timeout" | "length" | "len" | "ttl" | "port" | "db" | "destination-db"
        | "increment" | "decrement" | "limit" | "weight" | "frequency" | "entries-added" | "client-id"
        | "protover" | "slot" | "numreplicas" | "maxage" | "bit" | "rank" | "num-matches" => "integer",
        name if name.starts_with("unix-time") => "unix-time",
        _ => "string",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(arguments: &[Argument]) -> String {
        let one = |a: &Argument| {
            let token = a.token.as_ref().map_or(String::new(), |t| format!("{t}:"));
            let inner =
                if a.arguments.is_empty() { String::new() } else { format!("({})", shown(&a.arguments)) };
            let marks = format!("{}{}", if a.optional { "?" } else { "" }, if a.multiple { "*" } else { "" });
            format!("{token}{}/{}{inner}{marks}", a.name, a.kind)
        };
        arguments.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn syntaxes_become_trees() {
        for (syntax, want) in [
            ("", ""),
            ("key", "key/key"),
            ("key [key ...]", "key/key*"),
            ("[message]", "message/string?"),
            ("key value [key value ...]", "key-value/block(key/key value/string)*"),
            ("[pattern [pattern ...]]", "pattern/pattern?*"),
            (
                "key [NX | XX] [EX seconds | KEEPTTL]",
                "key/key nx-xx/oneof(NX:nx/pure-token XX:xx/pure-token)? seconds-keepttl/oneof(EX:seconds/integer KEEPTTL:keepttl/pure-token)?",
            ),
            ("timeout:double ip:port", "timeout/double ip:port/string"),
            ("[LIMIT offset count]", "LIMIT:limit/block(offset/integer count/integer)?"),
            ("TYPE <A | B>", "TYPE:a-b/oneof(A:a/pure-token B:b/pure-token)"),
        ] {
            assert_eq!(shown(&arguments(syntax)), want, "{syntax}");
        }
    }
}
