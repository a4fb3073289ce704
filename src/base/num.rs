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

/// Parses a double as `strtod` does for a whole argument: decimal or exponent form, `inf`,
/// `infinity`, hexadecimal refused. `None` for `nan`, an empty text or surrounding space.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let s = std::str::from_utf8(text).ok()?;
    if s.is_empty() || s.starts_with(char::is_whitespace) || s.ends_with(char::is_whitespace) {
        return None;
    }
    let x: f64 = s.parse().ok()?;
    (!x.is_nan()).then_some(x)
}

/// Text of a double as RESP3 and scores show it: an integer without a fraction, otherwise the
/// shortest text that reads back to the same value (as `%.17g` trimmed), `inf`, `-inf`.
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
    // Doubles up to 2^53 are exact integers; beyond, `%.17g` switches to an exponent at 10^17.
    if x == x.trunc() && x.abs() < 1e17 {
        return itoa::Buffer::new().format(x as i64).to_owned();
    }
    let digits = format!("{x:e}");
    let (mantissa, exponent) = digits.split_once('e').expect("exponent form always has an e");
    let exponent: i32 = exponent.parse().expect("exponent of a finite double");
    if (-5..17).contains(&exponent) {
        return format!("{x}");
    }
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// Parses a memory size: digits and an optional unit, `k` = 1000, `kb` = 1024, likewise m, g, b.
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
    digits.parse::<u64>().ok()?.checked_mul(unit)
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
    fn doubles_as_redis_prints_them() {
        for (x, text) in [
            (3.0, "3"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (1e17, "1e+17"),
            (1e16, "10000000000000000"),
            (1.5e-7, "1.5e-07"),
            (0.00001, "0.00001"),
            (3.14159, "3.14159"),
            (f64::INFINITY, "inf"),
            (1e100, "1e+100"),
        ] {
            assert_eq!(format_f64(x), text);
        }
    }
}
