//! The first line of a script: what it says of itself, in words as an inline command has them.
//! Source: "Scripting with Lua", "Eval script flags"; "Redis functions".

use crate::base::lossless;
use crate::resp::request::split_words;

/// What a script says about itself, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// `no-writes`: it changes nothing, so it may run on replicas.
    pub const NO_WRITES: Self = Self(1);
    /// `allow-oom`: it may run while memory is over its limit.
    pub const ALLOW_OOM: Self = Self(1 << 1);
    /// `allow-stale`: it may run on a replica that has lost its primary.
    pub const ALLOW_STALE: Self = Self(1 << 2);
    /// `no-cluster`: it is refused in cluster mode.
    pub const NO_CLUSTER: Self = Self(1 << 3);
    /// `allow-cross-slot-keys`: it may use keys of several slots.
    pub const ALLOW_CROSS_SLOT: Self = Self(1 << 4);
    /// Says nothing of itself: from before there were flags. What it does is looked at command by command.
    pub const SILENT: Self = Self(1 << 7);

    const NAMES: [(&'static str, Self); 5] = [
        ("no-writes", Self::NO_WRITES),
        ("allow-oom", Self::ALLOW_OOM),
        ("allow-stale", Self::ALLOW_STALE),
        ("no-cluster", Self::NO_CLUSTER),
        ("allow-cross-slot-keys", Self::ALLOW_CROSS_SLOT),
    ];

    /// The flag that the first line writes so.
    pub fn named(name: &[u8]) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, flag)| *flag)
    }

    /// Whether this flag is set.
    pub fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    /// Sets this flag too.
    pub fn add(&mut self, flag: Self) {
        self.0 |= flag.0;
    }

    /// The words for what is set.
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES.iter().filter(|(_, flag)| self.has(*flag)).map(|(name, _)| *name).collect()
    }
}

/// The flags of one of EVAL's scripts, and where the part begins that is compiled.
pub fn of_script(code: &[u8]) -> Result<(Flags, usize), String> {
    if !code.starts_with(b"#!") {
        return Ok((Flags::SILENT, 0));
    }
    // The line end stays: errors count lines from the top.
    let end = code.iter().position(|b| *b == b'\n').ok_or("ERR Invalid script shebang")?;
    let words = split_words(&code[..end]).unwrap_or_default();
    let Some((engine, words)) = words.split_first() else {
        return Err("ERR Invalid engine in script shebang".into());
    };
    let shown = |text: &[u8]| lossless::text(text).into_owned();
    if engine != b"#!lua" {
        return Err(format!("ERR Unexpected engine in script shebang: {}", shown(engine)));
    }
    let mut flags = Flags::default();
    for word in words {
        let list = word
            .strip_prefix(b"flags=")
            .ok_or_else(|| format!("ERR Unknown lua shebang option: {}", shown(word)))?;
        if list.is_empty() {
            continue;
        }
        for name in list.split(|b| *b == b',') {
            let flag = Flags::named(name)
                .ok_or_else(|| format!("ERR Unexpected flag in script shebang: {}", shown(name)))?;
            flags.add(flag);
        }
    }
    Ok((flags, end))
}

/// The name of a library, and where the part begins that is compiled.
pub fn of_library(code: &[u8]) -> Result<(String, usize), String> {
    if !code.starts_with(b"#!") {
        return Err("ERR Missing library metadata".into());
    }
    let end = code.iter().position(|b| *b == b'\n').ok_or("ERR Invalid library metadata")?;
    let words = split_words(&code[..end]).unwrap_or_default();
    let words: Vec<String> = words.iter().map(|word| lossless::text(word).into_owned()).collect();
    let Some((engine, words)) = words.split_first() else {
        return Err("ERR Invalid library metadata".into());
    };
    let engine = engine.strip_prefix("#!").unwrap_or(engine);
    let mut name = None;
    for word in words {
        let given = word
            .split_at_checked(5)
            .filter(|(start, _)| start.eq_ignore_ascii_case("name="))
            .ok_or_else(|| format!("ERR Invalid metadata value given: {word}"))?
            .1;
        if name.replace(given).is_some() {
            return Err("ERR Invalid metadata value, name argument was given multiple times".into());
        }
    }
    let name = name.ok_or("ERR Library name was not given")?;
    if !is_name(name.as_bytes()) {
        return Err(WRONG_NAME.into());
    }
    if !engine.eq_ignore_ascii_case("lua") {
        return Err(format!("ERR Engine '{engine}' not found"));
    }
    Ok((name.to_owned(), end))
}

/// The error reply to a name that [`is_name`] refuses.
pub const WRONG_NAME: &str = "ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one character long";

/// Whether libraries and functions may be called so.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}
