//! The fields of a section of INFO: names and values, which know what they are.

use std::fmt::Display;

/// What a field tells. INFO shows it as text; code that counts and compares takes the number.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Shown in decimal digits.
    Integer(i128),
    /// A number, and how many decimals INFO shows.
    Decimal(f64, usize),
    /// Shown as it is.
    Text(String),
}

macro_rules! integer {
    ($($t:ty)*) => {$(
        impl From<$t> for Value {
            fn from(value: $t) -> Self {
                Self::Integer(value as i128)
            }
        }
    )*};
}
integer!(u8 u16 u32 u64 usize u128 i32 i64);

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<std::fmt::Arguments<'_>> for Value {
    fn from(text: std::fmt::Arguments<'_>) -> Self {
        Self::Text(text.to_string())
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(n) => write!(f, "{n}"),
            Self::Decimal(n, places) => write!(f, "{n:.places$}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Fields of a section, in order.
#[derive(Debug, Default)]
pub struct Fields(Vec<(String, Value)>);

impl Fields {
    /// Appends a field; its name is unique within the section.
    pub fn field(&mut self, name: impl Display, value: impl Into<Value>) {
        self.0.push((name.to_string(), value.into()));
    }

    /// Takes over `field:value` lines of writers that know nothing of fields.
    pub fn lines(&mut self, text: &str) {
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = value.parse().map_or_else(|_| value.into(), Value::Integer);
            self.0.push((name.to_owned(), value));
        }
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = &(String, Value)> {
        self.0.iter()
    }

    /// A size in bytes, and the same for people.
    pub fn size(&mut self, name: &str, bytes: u64) {
        self.field(name, bytes);
        self.field(format_args!("{name}_human"), human(bytes));
    }
}

/// Bytes as `1.50M`.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "K", "M", "G", "T", "P"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.2}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in
            [(0, "0B"), (1023, "1023B"), (1024, "1.00K"), (1 << 20, "1.00M"), (1610612736, "1.50G")]
        {
            assert_eq!(human(bytes), text);
        }
    }
}
