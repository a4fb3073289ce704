//! Numbers as Redis reads and writes them.

/// Parses a signed 64-bit integer in the one canonical form: an optional minus sign and digits,
/// no plus sign, no leading zero, no space. `None` for anything else or when out of range.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [b'0'] => return (!negative).then_some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    // 19 digits fit u64, so only the sign's range needs a check.
    let mut n: u64 = 0;
    for &d in digits {
        let d = d.wrapping_sub(b'0');
        if d > 9 {
            return None;
        }
        n = n * 10 + u64::from(d);
    }
    if negative { (n <= 1 << 63).then(|| (n as i64).wrapping_neg()) } else { i64::try_from(n).ok() }
}

/// Parses an unsigned 64-bit integer in canonical form.
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    match text {
        [b'0'] => Some(0),
        [b'1'..=b'9', ..] => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

/// Reads an unsigned 64-bit integer as `strtoull` reads a whole text: space in front, a sign (a negative number is
/// that below 2^64), leading zeros. `None` for anything else or when out of range.
pub fn parse_u64_leniently(text: &[u8]) -> Option<u64> {
    let (negative, digits) = sign_and_rest(text);
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(if negative { n.wrapping_neg() } else { n })
}

/// The number that a text begins with, as `atoi` reads it: 0 where there is none.
pub fn leading_i64(text: &[u8]) -> i64 {
    let (negative, rest) = sign_and_rest(text);
    let digits = rest.iter().take_while(|b| b.is_ascii_digit());
    let n = digits.fold(0i64, |n, d| n.saturating_mul(10).saturating_add(i64::from(d - b'0')));
    if negative { -n } else { n }
}

/// Whether there is a minus sign, and what follows space and sign.
fn sign_and_rest(text: &[u8]) -> (bool, &[u8]) {
    let space = text.iter().take_while(|b| matches!(b, b' ' | b'\t'..=b'\r')).count();
    match &text[space..] {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] | rest => (false, rest),
    }
}

/// Parses a double as `strtod` does for a whole argument: decimal or exponent form, hexadecimal,
/// `inf`, `infinity`. `None` for `nan`, an empty text, surrounding space, or what is out of range.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    // Most scores are integers.
    if text.len() <= 15
        && let Some(n) = parse_i64(text)
    {
        return Some(n as f64);
    }
    let x = parse_f64_of_any_size(text)?;
    let s = std::str::from_utf8(text).ok()?;
    let digits = s.strip_prefix(['-', '+']).unwrap_or(s);
    let overflow = x.is_infinite() && digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let is_hex = digits.starts_with("0x") || digits.starts_with("0X");
    let mantissa = digits.split(['e', 'E']).next().unwrap_or_default();
    let underflow = x == 0.0 && !is_hex && mantissa.contains(|c: char| ('1'..='9').contains(&c));
    (!overflow && !underflow).then_some(x)
}

/// As [`parse_f64`], but what is too large is infinite and what is too small is zero.
pub fn parse_f64_of_any_size(text: &[u8]) -> Option<f64> {
    let s = std::str::from_utf8(text).ok()?;
    let digits = s.strip_prefix(['-', '+']).unwrap_or(s);
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        let x = parse_hex(hex)?;
        return Some(if s.starts_with('-') { -x } else { x });
    }
    if s.is_empty() || s.starts_with(char::is_whitespace) || s.ends_with(char::is_whitespace) {
        return None;
    }
    s.parse().ok().filter(|x: &f64| !x.is_nan())
}

/// A hexadecimal number behind its `0x`: digits with a fraction and a binary exponent.
fn parse_hex(text: &str) -> Option<f64> {
    let (mantissa, exponent) = match text.split_once(['p', 'P']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() + fraction.len() == 0 {
        return None;
    }
    let mut x = 0.0;
    for c in whole.chars().chain(fraction.chars()) {
        x = x * 16.0 + f64::from(c.to_digit(16)?);
    }
    let x: f64 = x * f64::from(exponent.saturating_sub(4 * fraction.len() as i32)).exp2();
    (!x.is_nan()).then_some(x)
}

/// Text of a double as Redis 7.2 and later show it: an integer without a fraction, otherwise the
/// shortest text that reads back to the same value, in exponent form where a plain one would be
/// long; `inf`, `-inf`.
pub fn format_f64(x: f64) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf".into() } else { "-inf".into() };
    }
    if x == 0.0 {
        return if x.is_sign_negative() { "-0".into() } else { "0".into() };
    }
    if let Some(n) = as_integer(x) {
        return itoa::Buffer::new().format(n).to_owned();
    }
    // One digit, the others behind a point, and the exponent of ten.
    let shortest = format!("{x:e}");
    let (mantissa, exponent) = shortest.split_once('e').expect("exponent form always has an e");
    let exponent: i32 = exponent.parse().expect("exponent of a finite double");
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count() as i32;
    let fraction = digits - 1 - exponent;
    let plain = if fraction <= 0 { exponent < digits + 7 } else { fraction < 7 || exponent.abs() < 4 };
    if plain {
        return format!("{x}");
    }
    format!("{mantissa}e{}{}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// The integer that a double is, up to 2^62 either way: so far Redis 7.2 and later show whole numbers
/// without an exponent.
#[inline]
pub fn as_integer(x: f64) -> Option<i64> {
    let n = x as i64;
    (n as f64 == x && n.unsigned_abs() <= 1 << 62 && (n != 0 || x.is_sign_positive())).then_some(n)
}

/// Parses a memory size: digits and an optional unit, `k` = 1000, `kb` = 1024, likewise m, g, b. No digits are 0, and what
/// is too large is the largest, as with C's `strtoull`.
pub fn parse_memory(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    // `u64::from_str` would take a plus sign.
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value = if digits.is_empty() { 0 } else { digits.parse::<u64>().unwrap_or(u64::MAX) };
    Some(value.saturating_mul(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_integers_parse() {
        assert_eq!(parse_i64(b"0"), Some(0));
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_i64(b"9223372036854775807"), Some(i64::MAX));
        for bad in
            ["", "-", "-0", "+1", "01", " 1", "1 ", "9223372036854775808", "1.0", "99999999999999999999"]
        {
            assert_eq!(parse_i64(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn doubles_are_read_as_strtod_reads_them() {
        for (text, x) in [("0x1p3", 8.0), ("-0x.8", -0.5), (".5", 0.5), ("5.", 5.0), ("+inf", f64::INFINITY)]
        {
            assert_eq!(parse_f64(text.as_bytes()), Some(x), "{text}");
        }
        for bad in ["", "nan", " 1", "1 ", "1e400", "1e-400", "0x", "abc", "1x"] {
            assert_eq!(parse_f64(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn doubles_as_redis_prints_them() {
        for (x, text) in [
            (3.0, "3"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (1e17, "100000000000000000"),
            (-1.7e18, "-1700000000000000000"),
            (4611686018427387904.0, "4611686018427387904"),
            (9e18, "9e+18"),
            (9223372036854775807.0, "9223372036854776000"),
            (1e20, "1e+20"),
            (1e10, "10000000000"),
            (123456789012345678.0, "123456789012345680"),
            (1.5e-7, "1.5e-7"),
            (0.00001, "0.00001"),
            (1.23456789e-5, "1.23456789e-5"),
            (12345.678901234567, "1.2345678901234567e+4"),
            (3.25159, "3.25159"),
            (-1.1, "-1.1"),
            (f64::INFINITY, "inf"),
            (1e100, "1e+100"),
        ] {
            assert_eq!(format_f64(x), text);
        }
    }
}
