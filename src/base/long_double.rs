//! The 80-bit floating point numbers that INCRBYFLOAT and HINCRBYFLOAT count in: 64 bits of mantissa,
//! so that 0.1 and 0.2 make 0.3. Source: the documentation of INCRBYFLOAT (17 digits behind the point,
//! trailing zeros removed); rounding is to nearest, ties to even, as IEEE 754 has it.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Add;

/// Longer texts are refused, as Redis does.
const MAX_TEXT: usize = 5 * 1024;
/// Powers of two and ten beyond which every number is out of range.
const MAX_EXPONENT: i32 = 16_384;
const MIN_EXPONENT: i32 = -16_445;
const MAX_DECIMALS: i64 = 5_000;
const INFINITE: i32 = i32::MAX;

/// `mantissa * 2^exponent`; the highest bit of a mantissa is set unless it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongDouble {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

impl LongDouble {
    /// The number 0, without a sign.
    pub const ZERO: Self = Self { negative: false, mantissa: 0, exponent: 0 };

    /// False for what a sum overflowed to.
    pub fn is_finite(self) -> bool {
        self.exponent != INFINITE
    }

    /// Whether it is more than 0.
    pub fn is_positive(self) -> bool {
        !self.negative && self.mantissa != 0
    }

    const fn infinity(negative: bool) -> Self {
        Self { negative, mantissa: 1 << 63, exponent: INFINITE }
    }

    /// Parses as `strtold` does for a whole argument. `None` for what is no number, `nan`, and what
    /// is out of range.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() >= MAX_TEXT {
            return None;
        }
        let (negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        if digits.eq_ignore_ascii_case(b"inf") || digits.eq_ignore_ascii_case(b"infinity") {
            return Some(Self::infinity(negative));
        }
        let (radix, digits) = match digits {
            [b'0', b'x' | b'X', rest @ ..] => (16, rest),
            _ => (10, digits),
        };
        let mark = if radix == 16 { [b'p', b'P'] } else { [b'e', b'E'] };
        let (mantissa, exponent) = match digits.iter().position(|b| mark.contains(b)) {
            Some(at) => (&digits[..at], exponent(&digits[at + 1..])?),
            None => (digits, 0),
        };
        let (mut number, mut seen, mut behind_point) = (Natural::default(), 0, None::<i64>);
        for &b in mantissa {
            if b == b'.' && behind_point.is_none() {
                behind_point = Some(0);
                continue;
            }
            number.multiply_add(radix, (b as char).to_digit(radix)?);
            seen += 1;
            behind_point = behind_point.map(|n| n + 1);
        }
        if seen == 0 {
            return None;
        }
        let behind_point = behind_point.unwrap_or(0);
        if number.is_zero() {
            return Some(Self { negative, ..Self::ZERO });
        }
        let value = if radix == 16 {
            let shift = i32::try_from(exponent - 4 * behind_point).ok()?;
            number.round(negative, shift, false)
        } else {
            decimal(number, exponent - behind_point, negative)?
        };
        (value.is_finite() && value.exponent >= MIN_EXPONENT).then_some(value)
    }

    /// Rounds `mantissa * 2^exponent`, which may have more bits than fit, plus less than its last
    /// bit when `more`.
    fn rounded(negative: bool, mantissa: u128, exponent: i32, more: bool) -> Self {
        if mantissa == 0 {
            return Self::ZERO;
        }
        let drop = 64 - mantissa.leading_zeros() as i32;
        if drop <= 0 {
            let mantissa = (mantissa as u64) << -drop;
            return Self { negative, mantissa, exponent: exponent + drop };
        }
        let kept = (mantissa >> drop) as u64;
        let rest = mantissa & ((1 << drop) - 1);
        let half = 1u128 << (drop - 1);
        let up = rest > half || (rest == half && (more || kept & 1 == 1));
        let (mut mantissa, carried) = kept.overflowing_add(u64::from(up));
        let mut exponent = exponent + drop;
        if carried {
            (mantissa, exponent) = (1 << 63, exponent + 1);
        }
        if exponent + 64 > MAX_EXPONENT {
            return Self::infinity(negative);
        }
        Self { negative, mantissa, exponent }
    }

    fn compare_magnitude(&self, other: &Self) -> Ordering {
        match (self.mantissa, other.mantissa) {
            (0, 0) => Ordering::Equal,
            (0, _) => Ordering::Less,
            (_, 0) => Ordering::Greater,
            (a, b) => self.exponent.cmp(&other.exponent).then(a.cmp(&b)),
        }
    }
}

impl Add for LongDouble {
    type Output = Self;

    /// Never NaN: infinities of both signs stay infinite, which callers refuse.
    fn add(self, other: Self) -> Self {
        let (large, small) =
            if self.compare_magnitude(&other).is_lt() { (other, self) } else { (self, other) };
        if !large.is_finite() || small.mantissa == 0 {
            return large;
        }
        // Two bits of room above, 62 bits below.
        let a = u128::from(large.mantissa) << 62;
        let (shift, b) = ((large.exponent - small.exponent) as u32, u128::from(small.mantissa) << 62);
        let shifted = b.checked_shr(shift).unwrap_or(0);
        // Bits that are shifted out are remembered in the last bit, so that rounding sees them.
        let lost = shifted.checked_shl(shift).unwrap_or(0) != b;
        let b = shifted | u128::from(lost);
        let sum = if large.negative == small.negative { a + b } else { a - b };
        Self::rounded(large.negative, sum, large.exponent - 62, false)
    }
}

impl fmt::Display for LongDouble {
    /// The text with up to 17 digits behind the point.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_finite() {
            return f.write_str(if self.negative { "-inf" } else { "inf" });
        }
        let sign = if self.negative { "-" } else { "" };
        if self.exponent >= 0 {
            let mut number = Natural::from(self.mantissa);
            number.shift_left(self.exponent as u32);
            return write!(f, "{}{number}", if self.mantissa == 0 { "" } else { sign });
        }
        const ONE: u128 = 100_000_000_000_000_000;
        let scaled = u128::from(self.mantissa) * ONE;
        let drop = self.exponent.unsigned_abs();
        let kept = scaled.checked_shr(drop).unwrap_or(0);
        let rest = scaled - kept.checked_shl(drop).unwrap_or(0);
        let half = 1u128.checked_shl(drop - 1).unwrap_or(u128::MAX);
        let n = kept + u128::from(rest > half || (rest == half && kept & 1 == 1));
        let fraction = format!("{:017}", n % ONE);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        write!(f, "{}{}{point}{fraction}", if n == 0 { "" } else { sign }, n / ONE)
    }
}

/// The digits of an exponent; far beyond any range it stays there.
fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    let mut n = 0i64;
    for &b in digits {
        n = (n * 10 + i64::from((b as char).to_digit(10)?)).min(1_000_000);
    }
    Some(if negative { -n } else { n })
}

/// `number * 10^exponent`; `None` far out of range.
fn decimal(mut number: Natural, exponent: i64, negative: bool) -> Option<LongDouble> {
    // Ten is a little more than 2^3.321: what is out of range is not computed first.
    if exponent > MAX_DECIMALS || number.bits() as i64 + exponent * 3321 / 1000 < i64::from(MIN_EXPONENT) {
        return None;
    }
    if exponent >= 0 {
        (0..exponent).for_each(|_| number.multiply_add(10, 0));
        return Some(number.round(negative, 0, false));
    }
    let mut divisor = Natural::from(1);
    (0..-exponent).for_each(|_| divisor.multiply_add(10, 0));
    // Scaled so that the quotient has at least 66 bits and at most 67.
    let shift = 66 + divisor.bits() as i32 - number.bits() as i32;
    if shift >= 0 {
        number.shift_left(shift as u32);
    } else {
        divisor.shift_left(shift.unsigned_abs());
    }
    let mut quotient = 0u128;
    divisor.shift_left(67);
    for _ in 0..=67 {
        quotient <<= 1;
        if number.compare(&divisor).is_ge() {
            number.subtract(&divisor);
            quotient |= 1;
        }
        divisor.halve();
    }
    Some(LongDouble::rounded(negative, quotient, -shift, !number.is_zero()))
}

/// A natural number of any size, 32 bits a digit, the lowest first, no zeros at the end.
#[derive(Clone, Debug, Default)]
struct Natural(Vec<u32>);

impl From<u64> for Natural {
    fn from(n: u64) -> Self {
        let mut natural = Self(vec![n as u32, (n >> 32) as u32]);
        natural.trim();
        natural
    }
}

impl Natural {
    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn bits(&self) -> u32 {
        self.0.last().map_or(0, |top| self.0.len() as u32 * 32 - top.leading_zeros())
    }

    fn multiply_add(&mut self, by: u32, plus: u32) {
        let mut carry = u64::from(plus);
        for digit in &mut self.0 {
            let n = u64::from(*digit) * u64::from(by) + carry;
            (*digit, carry) = (n as u32, n >> 32);
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    /// Divides by a small number and returns the remainder.
    fn divide_small(&mut self, by: u32) -> u32 {
        let mut rest = 0u64;
        for digit in self.0.iter_mut().rev() {
            let n = rest << 32 | u64::from(*digit);
            (*digit, rest) = ((n / u64::from(by)) as u32, n % u64::from(by));
        }
        self.trim();
        rest as u32
    }

    fn shift_left(&mut self, by: u32) {
        let (whole, part) = (by as usize / 32, by % 32);
        if part > 0 {
            self.multiply_add(1 << part, 0);
        }
        if !self.is_zero() {
            self.0.splice(0..0, std::iter::repeat_n(0, whole));
        }
    }

    fn halve(&mut self) {
        let mut carry = 0;
        for digit in self.0.iter_mut().rev() {
            (*digit, carry) = (*digit >> 1 | carry << 31, *digit & 1);
        }
        self.trim();
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    /// Takes away a number that is not greater.
    fn subtract(&mut self, other: &Self) {
        let mut borrow = false;
        for (i, digit) in self.0.iter_mut().enumerate() {
            let (n, a) = digit.overflowing_sub(other.0.get(i).copied().unwrap_or(0));
            let (n, b) = n.overflowing_sub(u32::from(borrow));
            (*digit, borrow) = (n, a || b);
        }
        self.trim();
    }

    /// `self * 2^exponent`, rounded; `more`: plus less than one.
    fn round(&self, negative: bool, exponent: i32, more: bool) -> LongDouble {
        let top: Vec<u32> = self.0.iter().rev().take(4).copied().collect();
        let mantissa = top.iter().fold(0u128, |n, digit| n << 32 | u128::from(*digit));
        let below = &self.0[..self.0.len() - top.len()];
        let more = more || below.iter().any(|digit| *digit != 0);
        LongDouble::rounded(negative, mantissa, exponent.saturating_add(below.len() as i32 * 32), more)
    }
}

impl fmt::Display for Natural {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut number = self.clone();
        let mut groups = Vec::new();
        while !number.is_zero() {
            groups.push(number.divide_small(1_000_000_000));
        }
        write!(f, "{}", groups.pop().unwrap_or(0))?;
        groups.iter().rev().try_for_each(|group| write!(f, "{group:09}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> String {
        (LongDouble::parse(a.as_bytes()).unwrap() + LongDouble::parse(b.as_bytes()).unwrap()).to_string()
    }

    /// Replies of HINCRBYFLOAT of a redis-server 7.0.15 on x86-64.
    #[test]
    fn sums_are_those_of_a_real_server() {
        for (a, b, text) in [
            ("0.1", "0.2", "0.3"),
            ("1000", "0.1", "1000.09999999999999998"),
            ("3.0e3", "200", "3200"),
            ("10", "1e-17", "10.00000000000000001"),
            ("1e17", "0.5", "100000000000000000.5"),
            ("123456.789", "0.001", "123456.78999999999999915"),
            ("5", "1e-20", "5"),
            ("10.5", "0.1", "10.6"),
            ("1", "-1", "0"),
            ("-0.25", "0.125", "-0.125"),
            ("0x1p3", "-0x.8", "7.5"),
        ] {
            assert_eq!(sum(a, b), text, "{a} + {b}");
        }
        assert!(
            sum("1e300", "1").starts_with("100000000000000000000899732407955919387052394427329074793826")
        );
        assert_eq!(sum("1e300", "1").len(), 301);
        assert!(sum("1e400", "1").starts_with("1000000000000000000028188068394758651458645343362905"));
        assert!(!(LongDouble::parse(b"1e4932").unwrap() + LongDouble::parse(b"1e4932").unwrap()).is_finite());
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for bad in
            ["", "-", "nan", "1x", "1e", " 1", "1 ", "0x", ".", "1.2.3", "1e5000", "1e-6000", "1e99999999"]
        {
            assert_eq!(LongDouble::parse(bad.as_bytes()), None, "{bad}");
        }
        assert!(!LongDouble::parse(b"-inf").unwrap().is_finite());
        assert_eq!(LongDouble::parse(b"-0").unwrap().to_string(), "0");
    }
}
