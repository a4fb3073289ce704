//! Strings as arrays of bits. Bit 0 is the highest bit of the first byte.

/// The bit at `offset`; beyond the end all bits are 0.
pub fn get(bytes: &[u8], offset: u64) -> bool {
    let byte = usize::try_from(offset / 8).ok().and_then(|at| bytes.get(at));
    byte.is_some_and(|byte| byte >> (7 - offset % 8) & 1 == 1)
}

/// Sets the bit at `offset`, which must be within the string, and returns the old one.
pub fn set(bytes: &mut [u8], offset: u64, on: bool) -> bool {
    let byte = &mut bytes[(offset / 8) as usize];
    let mask = 0x80 >> (offset % 8);
    let old = *byte & mask != 0;
    *byte = if on { *byte | mask } else { *byte & !mask };
    old
}

/// How many bits are 1.
pub fn count(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("popcnt") {
        // SAFETY: the processor has the instruction, which the arithmetic that any x86-64 has stands for otherwise.
        return unsafe { count_by_instruction(bytes) };
    }
    count_words(bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt")]
fn count_by_instruction(bytes: &[u8]) -> u64 {
    count_words(bytes)
}

#[inline(always)]
fn count_words(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let tail: u32 = rest.iter().map(|b| b.count_ones()).sum();
    words.iter().map(|w| u64::from(u64::from_ne_bytes(*w).count_ones())).sum::<u64>() + u64::from(tail)
}

/// How many of the bits from `first` to `last` (included) are 1. Both must be within the string.
pub fn count_between(bytes: &[u8], first: u64, last: u64) -> u64 {
    let (from, to) = ((first / 8) as usize, (last / 8) as usize);
    let before = bytes[from] & !(0xff >> (first % 8));
    let behind = bytes[to] & (0x7f_u8 >> (last % 8));
    count(&bytes[from..=to]) - u64::from(before.count_ones()) - u64::from(behind.count_ones())
}

/// The first bit that is `on` from `first` to `last` (included). Both must be within the string.
pub fn position(bytes: &[u8], on: bool, first: u64, last: u64) -> Option<u64> {
    let flip = if on { 0 } else { u64::MAX };
    let (from, to) = ((first / 8) as usize, (last / 8) as usize);
    // The bits of the first byte from `first` on, then whole words, then whole bytes.
    let head = (bytes[from] ^ flip as u8) & 0xff >> (first % 8);
    let found = if head != 0 {
        from as u64 * 8 + u64::from(head.leading_zeros())
    } else {
        let rest = &bytes[from + 1..=to];
        let (words, _) = rest.as_chunks::<8>();
        let skipped = words.iter().take_while(|w| u64::from_ne_bytes(**w) == flip).count() * 8;
        let at = skipped + rest[skipped..].iter().position(|b| b ^ flip as u8 != 0)?;
        (from + 1 + at) as u64 * 8 + u64::from((rest[at] ^ flip as u8).leading_zeros())
    };
    (found <= last).then_some(found)
}

/// What BITOP does with its sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of BITOP")]
pub enum Operation {
    And,
    Or,
    Xor,
    Not,
}

/// Combines strings bit by bit; short ones count as filled up with zeros. `Not` looks at the first one only.
pub fn combine(operation: Operation, sources: &[&[u8]]) -> Vec<u8> {
    let Some((first, others)) = sources.split_first() else { return Vec::new() };
    if operation == Operation::Not {
        return first.iter().map(|b| !b).collect();
    }
    let longest = sources.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut out = Vec::with_capacity(longest);
    out.extend_from_slice(first);
    out.resize(longest, 0);
    for source in others {
        let (same, beyond) = out.split_at_mut(source.len());
        let pairs = same.iter_mut().zip(*source);
        match operation {
            Operation::And => {
                pairs.for_each(|(a, b)| *a &= b);
                beyond.fill(0);
            }
            Operation::Or => pairs.for_each(|(a, b)| *a |= b),
            Operation::Xor => pairs.for_each(|(a, b)| *a ^= b),
            Operation::Not => {}
        }
    }
    out
}

/// The type of an integer of a bit field: `i1` to `i64` and `u1` to `u63`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldType {
    /// Whether the first bit is a sign (two's complement).
    pub signed: bool,
    /// Width in bits.
    pub bits: u32,
}

/// What becomes of a number that does not fit its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// Its low bits stay.
    Wrap,
    /// It becomes the nearest number that fits.
    Saturate,
    /// Nothing is written.
    Fail,
}

impl FieldType {
    /// Reads the integer whose first bit is at `offset`; bits beyond the end are 0.
    pub fn read(self, bytes: &[u8], offset: u64) -> i64 {
        let raw = (0..u64::from(self.bits)).fold(0, |n, i| n << 1 | u64::from(get(bytes, offset + i)));
        self.low_bits(raw)
    }

    /// Writes an integer whose last bit lies inside.
    pub fn write(self, bytes: &mut [u8], offset: u64, value: i64) {
        for i in 0..self.bits {
            let on = value as u64 >> (self.bits - 1 - i) & 1 == 1;
            set(bytes, offset + u64::from(i), on);
        }
    }

    /// The number that the low bits of `raw` stand for.
    fn low_bits(self, raw: u64) -> i64 {
        let unused = 64 - self.bits;
        if self.signed { (raw << unused) as i64 >> unused } else { (raw << unused >> unused) as i64 }
    }

    /// A number as this type; `None` when it does not fit and `overflow` says to fail.
    pub fn fit(self, number: i128, overflow: Overflow) -> Option<i64> {
        let (least, most) = if self.signed {
            (-(1_i128 << (self.bits - 1)), (1_i128 << (self.bits - 1)) - 1)
        } else {
            (0, (1_i128 << self.bits) - 1)
        };
        if (least..=most).contains(&number) {
            return Some(number as i64);
        }
        match overflow {
            Overflow::Wrap => Some(self.low_bits(number as u64)),
            Overflow::Saturate => Some(number.clamp(least, most) as i64),
            Overflow::Fail => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn naive(bytes: &[u8], first: u64, last: u64) -> impl Iterator<Item = u64> + '_ {
        (first..=last).filter(|i| get(bytes, *i))
    }

    #[test]
    fn counting_and_searching_agree_with_looking_at_each_bit() {
        let mut rng = Rng::new(7);
        for round in 0..2000 {
            let len = 1 + rng.below(40);
            let filler = if round % 2 == 0 { 0 } else { 0xff };
            let mut bytes = vec![filler; len as usize];
            for _ in 0..rng.below(4) {
                let (at, on) = (rng.below(len * 8), rng.below(2) == 1);
                set(&mut bytes, at, on);
            }
            let first = rng.below(len * 8);
            let last = first + rng.below(len * 8 - first);
            assert_eq!(count_between(&bytes, first, last), naive(&bytes, first, last).count() as u64);
            assert_eq!(position(&bytes, true, first, last), naive(&bytes, first, last).next());
            let zero = (first..=last).find(|i| !get(&bytes, *i));
            assert_eq!(position(&bytes, false, first, last), zero);
            assert_eq!(count(&bytes), count_words(&bytes));
        }
    }

    #[test]
    fn fields_are_read_as_they_were_written() {
        let mut rng = Rng::new(8);
        for _ in 0..2000 {
            let signed = rng.below(2) == 1;
            let bits = 1 + rng.below(if signed { 64 } else { 63 }) as u32;
            let field = FieldType { signed, bits };
            let number = field.fit(i128::from(rng.next_u64() as i64), Overflow::Wrap).unwrap();
            let mut bytes = vec![0xa5; 24];
            let offset = rng.below(100);
            field.write(&mut bytes, offset, number);
            assert_eq!(field.read(&bytes, offset), number);
            let mut around = bytes.clone();
            field.write(&mut around, offset, FieldType { signed, bits }.read(&[0xa5; 24], offset));
            assert_eq!(around, [0xa5; 24]);
        }
    }
}
