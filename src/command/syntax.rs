//! The arguments of a command as COMMAND DOCS describes them, read from the syntax that the command's row
//! states:
//!
//! | written | means |
//! |---|---|
//! | `key`, `NX` | an argument; a word of its own (a token) |
//! | `COUNT count`, `LIMIT (offset count)` | an argument behind a token |
//! | `[x]`, `x ...` | optional; one or more |
//! | `GET x GET...` | one or more, the token each time |
//! | `<a \| b>`, `(a b)` | one of several; a block |
//! | `name=<a \| b>`, `name=NX` | the name of a group or of a token, if it is not the token in lower case |
//!
//! Behind a name may follow, in this order: `~shown`, the word for people; `:type`, unless it follows from the
//! name; `#n`, the key specification, unless it is the next one; `@version` since when, and `!version` until
//! when it is recommended.

/// One argument, or a group of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Argument {
    /// As COMMAND DOCS calls it.
    pub name: String,
    /// The word for people, if it is not the name.
    pub shown: Option<String>,
    /// As COMMAND DOCS calls it: `key`, `integer`, `oneof`, ...
    pub kind: String,
    /// The word in front of it; of a pure token, the word itself.
    pub token: Option<String>,
    /// Number of the key specification, if told.
    pub key_spec: Option<usize>,
    /// The version that it came with, if it came later than the command.
    pub since: Option<String>,
    /// The version since which it should not be used.
    pub deprecated_since: Option<String>,
    /// May be left out.
    pub optional: bool,
    /// May be given several times.
    pub multiple: bool,
    /// The token stands in front of each of several.
    pub multiple_token: bool,
    /// The members of a group or the alternatives of a choice.
    pub arguments: Vec<Argument>,
}

/// Reads a syntax. Every text gives something: rows are checked by a test, not here.
pub fn arguments(syntax: &str) -> Vec<Argument> {
    let mut spaced = String::new();
    for c in syntax.chars() {
        if "[]<>()|".contains(c) {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    let mut keys = 0;
    let words = spaced.split_whitespace().collect();
    let mut arguments = Reader { words, at: 0 }.sequence();
    number_keys(&mut arguments, &mut keys);
    arguments
}

/// Arguments as people write them: `key [key ...] [NX | XX]`.
pub fn shown(arguments: &[Argument]) -> String {
    arguments.iter().map(Argument::shown).collect::<Vec<_>>().join(" ")
}

/// Gives each key the next specification, unless it names one itself.
fn number_keys(arguments: &mut [Argument], next: &mut usize) {
    for argument in arguments {
        if argument.kind == "key" {
            let number = *argument.key_spec.get_or_insert(*next);
            *next = (*next).max(number + 1);
        }
        number_keys(&mut argument.arguments, next);
    }
}

impl Argument {
    fn shown(&self) -> String {
        let inner =
            |separator: &str| self.arguments.iter().map(Self::shown).collect::<Vec<_>>().join(separator);
        let value = match self.kind.as_str() {
            "pure-token" => match self.token.as_deref() {
                Some("") => "\"\"".to_owned(),
                token => token.unwrap_or_default().to_owned(),
            },
            "block" => inner(" "),
            "oneof" if self.optional && self.token.is_none() && !self.multiple => inner(" | "),
            "oneof" => format!("<{}>", inner(" | ")),
            _ => self.shown.as_ref().unwrap_or(&self.name).clone(),
        };
        let whole = match &self.token {
            Some(token) if self.kind != "pure-token" => format!("{token} {value}"),
            _ => value.clone(),
        };
        let again = if self.multiple_token { &whole } else { &value };
        let all = if self.multiple { format!("{whole} [{again} ...]") } else { whole.clone() };
        if self.optional { format!("[{all}]") } else { all }
    }
}

struct Reader<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> &'a str {
        self.words.get(self.at).copied().unwrap_or("")
    }

    fn next(&mut self) -> &'a str {
        let word = self.peek();
        self.at += 1;
        word
    }

    /// Arguments up to a closing bracket or a bar.
    fn sequence(&mut self) -> Vec<Argument> {
        let mut out: Vec<Argument> = Vec::new();
        while !matches!(self.peek(), "" | "]" | ">" | ")" | "|") {
            let word = self.next();
            if let Some(token) = word.strip_suffix("...") {
                if let Some(last) = out.last_mut() {
                    (last.multiple, last.multiple_token) = (true, !token.is_empty());
                }
            } else if word == "[" {
                let mut inner = self.sequence();
                self.next();
                for argument in &mut inner {
                    argument.optional = true;
                }
                out.append(&mut inner);
            } else {
                out.push(self.argument(word));
            }
        }
        out
    }

    /// The argument that begins with `word`.
    fn argument(&mut self, word: &str) -> Argument {
        if matches!(word, "<" | "(") {
            return self.group(word, Argument::default());
        }
        if is_token(word) {
            return self.behind_token(word);
        }
        let Some((label, token)) = label(word) else { return plain(word) };
        let named = attributes(label);
        match (token, self.peek()) {
            ("", open @ ("<" | "(")) => {
                self.at += 1;
                self.group(open, named)
            }
            (token, _) => Argument { token: Some(token.to_owned()), kind: "pure-token".into(), ..named },
        }
    }

    /// A token, and the argument that belongs to it, if there is one.
    fn behind_token(&mut self, token: &str) -> Argument {
        let word = self.peek();
        let alone = matches!(word, "" | "[" | "]" | ">" | ")" | "|")
            || word.ends_with("...")
            || is_token(word)
            || label(word).is_some_and(|(_, token)| !token.is_empty());
        let token = attributes(token);
        let lower = token.name.to_ascii_lowercase();
        if alone {
            let kind = "pure-token".into();
            return Argument { token: Some(token.name), name: lower, kind, ..token };
        }
        let word = self.next();
        let argument = self.argument(word);
        let name = if argument.name.is_empty() { lower } else { argument.name };
        Argument { name, token: Some(token.name), ..argument }
    }

    /// A group whose opening bracket has been read, under the name and attributes of `named`.
    fn group(&mut self, open: &str, named: Argument) -> Argument {
        let mut alternatives = vec![self.sequence()];
        while self.peek() == "|" {
            self.at += 1;
            alternatives.push(self.sequence());
        }
        // The closing bracket.
        self.at += 1;
        let kind = if open == "<" { "oneof" } else { "block" };
        let arguments = alternatives.into_iter().flatten().collect();
        Argument { kind: kind.into(), arguments, ..named }
    }
}

/// The name in front of an equals sign, and what is behind it.
fn label(word: &str) -> Option<(&str, &str)> {
    word.split_once('=').filter(|(label, _)| !label.is_empty())
}

/// A name with what follows it.
fn attributes(word: &str) -> Argument {
    let mut argument = Argument::default();
    let mut rest = word;
    let mut take = |mark: char| {
        let (before, after) = rest.rsplit_once(mark).filter(|(before, _)| !before.is_empty())?;
        rest = before;
        Some(after.to_owned())
    };
    argument.deprecated_since = take('!');
    argument.since = take('@');
    argument.key_spec = take('#').and_then(|n| n.parse().ok());
    if !word.contains('~') {
        argument.kind = take(':').unwrap_or_default();
    }
    argument.shown = take('~');
    rest.clone_into(&mut argument.name);
    argument
}

fn plain(word: &str) -> Argument {
    let mut argument = attributes(word);
    if argument.kind.is_empty() {
        argument.kind = kind(&argument.name).to_owned();
    }
    argument
}

fn is_token(word: &str) -> bool {
    !word.contains(|c: char| c.is_ascii_lowercase())
        && word.contains(|c: char| c.is_ascii_uppercase() || "=~*$".contains(c))
}

/// The type of an argument by its name, as the documentation uses them.
fn kind(name: &str) -> &'static str {
    match name {
        "key" | "key1" | "key2" | "keys" | "newkey" | "source" | "destination" | "sourcekey" | "destkey"
        | "src" | "dst" | "storekey" | "storedistkey" => "key",
        "pattern" | "by-pattern" | "get-pattern" => "pattern",
        "score" | "longitude" | "latitude" | "radius" | "width" | "height" | "timeout" => "double",
        "bit" | "bits" | "client-id" | "cluster-bus-port" | "config-epoch" | "count" | "cursor" | "db"
        | "decrement" | "destination-db" | "end" | "end-slot" | "entries-added" | "entriesread"
        | "frequency" | "increment" | "index" | "index1" | "index2" | "len" | "limit" | "maxage"
        | "milliseconds" | "min-match-len" | "ms" | "num-matches" | "numfields" | "numkeys" | "numlocal"
        | "numreplicas" | "offset" | "port" | "protover" | "rank" | "seconds" | "slot" | "start"
        | "start-slot" | "stop" | "ttl" | "version" | "weight" => "integer",
        name if name.starts_with("unix-time") => "unix-time",
        _ => "string",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(arguments: &[Argument]) -> String {
        let one = |a: &Argument| {
            let token = a.token.as_ref().map_or(String::new(), |t| format!("{t}:"));
            let inner =
                if a.arguments.is_empty() { String::new() } else { format!("({})", tree(&a.arguments)) };
            let since = a.since.as_ref().map_or(String::new(), |v| format!("@{v}"));
            let marks = [(a.optional, "?"), (a.multiple, "*"), (a.multiple_token, "+")];
            let marks: String = marks.iter().filter(|m| m.0).map(|m| m.1).collect();
            format!("{token}{}/{}{inner}{since}{marks}", a.name, a.kind)
        };
        arguments.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn syntaxes_become_trees_and_text_for_people() {
        for (syntax, wanted, text) in [
            ("", "", ""),
            ("key", "key/key", "key"),
            ("key ...", "key/key*", "key [key ...]"),
            ("[message]", "message/string?", "[message]"),
            ("[pattern ...]", "pattern/pattern?*", "[pattern [pattern ...]]"),
            ("data=(key value) ...", "data/block(key/key value/string)*", "key value [key value ...]"),
            (
                "key [condition@2.6.12=<NX | XX>] [expiration=<EX seconds@2.6.12 | KEEPTTL@6.0.0>]",
                "key/key condition/oneof(NX:nx/pure-token XX:xx/pure-token)@2.6.12? expiration/oneof(EX:seconds/integer@2.6.12 KEEPTTL:keepttl/pure-token@6.0.0)?",
                "key [NX | XX] [EX seconds | KEEPTTL]",
            ),
            ("timeout:integer addr~ip:port", "timeout/integer addr/string", "timeout ip:port"),
            (
                "[LIMIT (offset count)]",
                "LIMIT:limit/block(offset/integer count/integer)?",
                "[LIMIT offset count]",
            ),
            (
                "[TYPE client-type@5.0.0=<A | B>]",
                "TYPE:client-type/oneof(A:a/pure-token B:b/pure-token)@5.0.0?",
                "[TYPE <A | B>]",
            ),
            ("GET get-pattern GET...", "GET:get-pattern/pattern*+", "GET get-pattern [GET get-pattern ...]"),
            (
                "selector=<key | empty-string=> id=<auto-id=* | id>",
                "selector/oneof(key/key :empty-string/pure-token) id/oneof(*:auto-id/pure-token id/string)",
                "<key | \"\"> <* | id>",
            ),
            (
                "[operator=<equal== | approximately=~>] threshold",
                "operator/oneof(=:equal/pure-token ~:approximately/pure-token)? threshold/string",
                "[= | ~] threshold",
            ),
            (
                "args=<no-one=(NO ONE)>",
                "args/oneof(no-one/block(NO:no/pure-token ONE:one/pure-token))",
                "<NO ONE>",
            ),
        ] {
            let read = arguments(syntax);
            assert_eq!(tree(&read), wanted, "{syntax}");
            assert_eq!(shown(&read), text, "{syntax}");
        }
    }
}
