//! HyperLogLog: an estimate of how many different elements were seen, in the string that Redis keeps for it, byte
//! for byte.
//!
//! ```text
//! 0      4          5       8             16
//! | HYLL | encoding | 0 0 0 | cardinality | registers ... |
//! ```
//!
//! The cardinality is the last estimate, little-endian; its highest bit says that it is out of date. There are
//! 16,384 registers of six bits. Dense (encoding 0) they stand one behind the other, lowest bits first. Sparse
//! (1) they are runs: `00llllll` is up to 64 zeros, `01llllll llllllll` up to 16,384 zeros, `1vvvvvll` up to four
//! registers of a value of at most 32; lengths and values are written less one.
//!
//! The estimator is that of Otmar Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (2017),
//! algorithm 6.

/// Registers of one value.
pub const REGISTERS: usize = 1 << INDEX_BITS;

const INDEX_BITS: u32 = 14;
/// Bits of a hash that are counted.
const COUNTED_BITS: usize = 64 - INDEX_BITS as usize;
const REGISTER_BITS: usize = 6;
const HEADER: usize = 16;
const DENSE_LEN: usize = HEADER + (REGISTERS * REGISTER_BITS).div_ceil(8);
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
/// The byte of the cardinality with the bit that tells it out of date.
const STALE_AT: usize = 15;
const LONGEST_ZERO: usize = 64;
const LONGEST_VALUE: usize = 4;
const LARGEST_SPARSE: u8 = 32;

/// The runs of a sparse value do not cover the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupted;

/// A value without any element.
pub fn empty() -> Vec<u8> {
    let mut bytes = b"HYLL".to_vec();
    bytes.resize(HEADER, 0);
    bytes[4] = SPARSE;
    Run { value: 0, len: REGISTERS, code: Code::LongZero }.write(&mut bytes);
    bytes
}

/// Whether a string has the shape of a HyperLogLog; sparse registers may still be corrupted.
pub fn is_valid(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER
        && bytes.starts_with(b"HYLL")
        && (bytes[4] == SPARSE || bytes[4] == DENSE && bytes.len() == DENSE_LEN)
}

/// Whether a valid value is in the sparse form.
pub fn is_sparse(bytes: &[u8]) -> bool {
    bytes[4] == SPARSE
}

/// The last estimate, if nothing was added since.
pub fn cached(bytes: &[u8]) -> Option<u64> {
    let card: [u8; 8] = bytes[8..HEADER].try_into().ok()?;
    (card[7] & 0x80 == 0).then(|| u64::from_le_bytes(card))
}

/// Remembers an estimate.
pub fn set_cached(bytes: &mut [u8], estimate: u64) {
    bytes[8..HEADER].copy_from_slice(&estimate.to_le_bytes());
}

/// Tells the remembered estimate out of date.
pub fn forget_cached(bytes: &mut [u8]) {
    bytes[STALE_AT] |= 0x80;
}

/// Counts an element in; true if a register changed. A sparse value that would be longer than `max_sparse` bytes
/// becomes dense (`hll-sparse-max-bytes`).
pub fn add(bytes: &mut Vec<u8>, element: &[u8], max_sparse: usize) -> Result<bool, Corrupted> {
    let hash = murmur64a(element);
    let rest = hash >> INDEX_BITS | 1 << COUNTED_BITS;
    raise(bytes, hash as usize % REGISTERS, rest.trailing_zeros() as u8 + 1, max_sparse)
}

/// Makes a register at least `value`; true if it was less.
pub fn raise(bytes: &mut Vec<u8>, register: usize, value: u8, max_sparse: usize) -> Result<bool, Corrupted> {
    if !is_sparse(bytes) {
        return Ok(raise_dense(&mut bytes[HEADER..], register, value));
    }
    if value > LARGEST_SPARSE {
        return promote(bytes, register, value);
    }
    let mut first = 0;
    let (mut before, mut at) = (None, HEADER);
    let run = loop {
        let run = Run::read(&bytes[at..]).ok_or(Corrupted)?;
        if register < first + run.len {
            break run;
        }
        first += run.len;
        before = Some(at);
        at += run.code.bytes();
    };
    if run.value >= value {
        return Ok(false);
    }
    let new = run.split(register - first, value);
    let grown = bytes.len() + new.len() - run.code.bytes();
    if new.len() > run.code.bytes() && grown > max_sparse {
        return promote(bytes, register, value);
    }
    bytes.splice(at..at + run.code.bytes(), new);
    join_equal(bytes, before.unwrap_or(HEADER));
    forget_cached(bytes);
    Ok(true)
}

fn promote(bytes: &mut Vec<u8>, register: usize, value: u8) -> Result<bool, Corrupted> {
    make_dense(bytes)?;
    Ok(raise_dense(&mut bytes[HEADER..], register, value))
}

/// Joins neighbours of the same value, in the five runs from `at` on: no others can have become equal.
fn join_equal(bytes: &mut Vec<u8>, mut at: usize) {
    for _ in 0..5 {
        let Some(run) = Run::read(&bytes[at..]) else { return };
        let next = at + run.code.bytes();
        match Run::read(&bytes[next..]) {
            Some(other)
                if run.code == Code::Value
                    && other.code == Code::Value
                    && run.value == other.value
                    && run.len + other.len <= LONGEST_VALUE =>
            {
                let joined = Run { len: run.len + other.len, ..run };
                bytes.remove(next);
                bytes[at] = joined.value_byte();
            }
            _ => at = next,
        }
    }
}

/// Turns a sparse value into a dense one; false if it is dense already.
pub fn make_dense(bytes: &mut Vec<u8>) -> Result<bool, Corrupted> {
    if !is_sparse(bytes) {
        return Ok(false);
    }
    let mut dense = vec![0; DENSE_LEN];
    dense[..HEADER].copy_from_slice(&bytes[..HEADER]);
    dense[4] = DENSE;
    for_each_run(bytes, |first, run| {
        for register in first..first + run.len {
            raise_dense(&mut dense[HEADER..], register, run.value);
        }
    })?;
    *bytes = dense;
    Ok(true)
}

/// Where a dense register begins: its byte and its bit.
fn place(register: usize) -> (usize, usize) {
    (register * REGISTER_BITS / 8, register * REGISTER_BITS % 8)
}

fn read_dense(registers: &[u8], register: usize) -> u8 {
    let (byte, bit) = place(register);
    let pair = u16::from(registers[byte]) | u16::from(*registers.get(byte + 1).unwrap_or(&0)) << 8;
    (pair >> bit) as u8 & 63
}

fn raise_dense(registers: &mut [u8], register: usize, value: u8) -> bool {
    if read_dense(registers, register) >= value {
        return false;
    }
    let (byte, bit) = place(register);
    let (mask, value) = (63_u16 << bit, u16::from(value) << bit);
    registers[byte] = registers[byte] & !(mask as u8) | value as u8;
    if bit > 2 {
        registers[byte + 1] = registers[byte + 1] & !((mask >> 8) as u8) | (value >> 8) as u8;
    }
    true
}

/// How a run is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    Zero,
    LongZero,
    Value,
}

impl Code {
    fn bytes(self) -> usize {
        if self == Code::LongZero { 2 } else { 1 }
    }
}

/// Registers in a row with the same value.
#[derive(Clone, Copy, Debug)]
struct Run {
    value: u8,
    len: usize,
    code: Code,
}

impl Run {
    fn read(bytes: &[u8]) -> Option<Self> {
        let first = *bytes.first()?;
        Some(match first >> 6 {
            0 => Self { value: 0, len: usize::from(first & 63) + 1, code: Code::Zero },
            1 => {
                let len = (usize::from(first & 63) << 8 | usize::from(*bytes.get(1)?)) + 1;
                Self { value: 0, len, code: Code::LongZero }
            }
            _ => Self { value: (first >> 2 & 31) + 1, len: usize::from(first & 3) + 1, code: Code::Value },
        })
    }

    fn of(value: u8, len: usize) -> Self {
        let code = match value {
            0 if len > LONGEST_ZERO => Code::LongZero,
            0 => Code::Zero,
            _ => Code::Value,
        };
        Self { value, len, code }
    }

    fn value_byte(self) -> u8 {
        0x80 | (self.value - 1) << 2 | (self.len - 1) as u8
    }

    fn write(self, out: &mut Vec<u8>) {
        match self.code {
            Code::Zero => out.push((self.len - 1) as u8),
            Code::LongZero => out.extend([0x40 | ((self.len - 1) >> 8) as u8, (self.len - 1) as u8]),
            Code::Value => out.push(self.value_byte()),
        }
    }

    /// The run with another value at one of its registers.
    fn split(self, at: usize, value: u8) -> smallvec::SmallVec<[u8; 5]> {
        let mut out = Vec::with_capacity(5);
        for part in [Run::of(self.value, at), Run::of(value, 1), Run::of(self.value, self.len - at - 1)] {
            if part.len > 0 {
                part.write(&mut out);
            }
        }
        smallvec::SmallVec::from_vec(out)
    }
}

/// Shows the runs of a sparse value, each with its first register.
fn for_each_run(bytes: &[u8], mut show: impl FnMut(usize, Run)) -> Result<(), Corrupted> {
    let (mut at, mut first) = (HEADER, 0);
    while at < bytes.len() {
        let run = Run::read(&bytes[at..]).ok_or(Corrupted)?;
        if first + run.len > REGISTERS {
            return Err(Corrupted);
        }
        show(first, run);
        at += run.code.bytes();
        first += run.len;
    }
    if first == REGISTERS { Ok(()) } else { Err(Corrupted) }
}

/// The runs of a sparse value as PFDEBUG DECODE shows them.
pub fn describe(bytes: &[u8]) -> Result<String, Corrupted> {
    let mut runs = Vec::new();
    for_each_run(bytes, |_, run| {
        runs.push(match run.code {
            Code::Zero => format!("z:{}", run.len),
            Code::LongZero => format!("Z:{}", run.len),
            Code::Value => format!("v:{},{}", run.value, run.len),
        });
    })?;
    Ok(runs.join(" "))
}

/// How many different elements were seen, estimated.
pub fn count(bytes: &[u8]) -> Result<u64, Corrupted> {
    let mut histogram = [0; 64];
    if is_sparse(bytes) {
        for_each_run(bytes, |_, run| histogram[usize::from(run.value)] += run.len as u32)?;
    } else {
        for_each_dense(&bytes[HEADER..], |_, value| histogram[usize::from(value)] += 1);
    }
    Ok(estimate(&histogram))
}

/// Shows every dense register: four of them in three bytes.
#[inline(always)]
fn for_each_dense(registers: &[u8], mut show: impl FnMut(usize, u8)) {
    for (group, bytes) in registers.as_chunks::<3>().0.iter().enumerate() {
        let word = u32::from(bytes[0]) | u32::from(bytes[1]) << 8 | u32::from(bytes[2]) << 16;
        for i in 0..4 {
            show(group * 4 + i, (word >> (6 * i)) as u8 & 63);
        }
    }
}

/// The largest value of each register over several values.
#[derive(Debug)]
pub struct Union(Box<[u8; REGISTERS]>);

impl Default for Union {
    fn default() -> Self {
        Self(Box::new([0; REGISTERS]))
    }
}

impl Union {
    /// Takes in the registers of a value.
    pub fn merge(&mut self, bytes: &[u8]) -> Result<(), Corrupted> {
        let all = &mut self.0;
        if !is_sparse(bytes) {
            for_each_dense(&bytes[HEADER..], |register, value| all[register] = all[register].max(value));
            return Ok(());
        }
        for_each_run(bytes, |first, run| {
            if run.value > 0 {
                all[first..first + run.len].iter_mut().for_each(|r| *r = (*r).max(run.value));
            }
        })
    }

    /// How many different elements were seen by any of them, estimated.
    pub fn count(&self) -> u64 {
        let mut histogram = [0; 64];
        self.0.iter().for_each(|value| histogram[usize::from(*value)] += 1);
        estimate(&histogram)
    }

    /// All 16,384 registers, a byte each.
    pub fn registers(&self) -> &[u8] {
        &self.0[..]
    }

    /// Raises the registers of a value to these.
    pub fn write_to(&self, bytes: &mut Vec<u8>, max_sparse: usize) -> Result<(), Corrupted> {
        for (register, value) in self.0.iter().enumerate().filter(|(_, value)| **value > 0) {
            raise(bytes, register, *value, max_sparse)?;
        }
        Ok(())
    }
}

/// The estimate from how many registers have each value.
fn estimate(histogram: &[u32; 64]) -> u64 {
    const ALPHA: f64 = 0.721_347_520_444_481_7;
    let m = REGISTERS as f64;
    let mut z = m * tau((m - f64::from(histogram[COUNTED_BITS + 1])) / m);
    for value in (1..=COUNTED_BITS).rev() {
        z = (z + f64::from(histogram[value])) * 0.5;
    }
    z += m * sigma(f64::from(histogram[0]) / m);
    (ALPHA * m * m / z).round() as u64
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

/// MurmurHash64A (Austin Appleby, public domain), with the seed that HyperLogLog values are made with.
fn murmur64a(data: &[u8]) -> u64 {
    const SEED: u64 = 0xadc8_3b19;
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    let mut h = SEED ^ (data.len() as u64).wrapping_mul(M);
    let (words, rest) = data.as_chunks::<8>();
    for word in words {
        let mut k = u64::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ k >> 47).wrapping_mul(M);
        h = (h ^ k).wrapping_mul(M);
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        h = (h ^ u64::from_le_bytes(word)).wrapping_mul(M);
    }
    h = (h ^ h >> 47).wrapping_mul(M);
    h ^ h >> 47
}

/// What PFSELFTEST checks: registers keep what is written, both encodings agree, and estimates are as near as
/// the number of registers promises. Says what is wrong.
pub fn self_test() -> Result<(), &'static str> {
    let (mut sparse, mut dense) = (empty(), empty());
    make_dense(&mut dense).map_err(|Corrupted| "an empty value is corrupted")?;
    let mut model = Union::default();
    // The expected error is 1.04 / sqrt(m); four times that is once in 16,000.
    let allowed = 4.0 * 1.04 / (REGISTERS as f64).sqrt();
    let mut checkpoint = 1;
    for n in 1..=100_000_u64 {
        let element = n.to_le_bytes();
        let changed = add(&mut sparse, &element, 3000);
        if changed != add(&mut dense, &element, 0) {
            return Err("the encodings differ");
        }
        if n == checkpoint {
            checkpoint *= 10;
            let (a, b) = (count(&sparse), count(&dense));
            model.merge(&dense).map_err(|Corrupted| "a dense value is corrupted")?;
            let error = b.map_or(f64::INFINITY, |b| (b as f64 - n as f64).abs());
            if a != b || b != Ok(model.count()) {
                return Err("the estimates of the encodings differ");
            }
            if error > (n as f64 * allowed).max(1.0) {
                return Err("an estimate is too far off");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    /// The bytes are those that Redis 7.4.1 makes of the same elements.
    #[test]
    fn sparse_values_are_byte_for_byte_those_of_redis() {
        let mut bytes = empty();
        assert_eq!(bytes, *b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\0\x7f\xff");
        for (elements, want) in [(&["a"][..], &b"q\xa6\x84NW"[..]), (&["b"], b"q\xa6\x84K\xfb\x80BZ")] {
            for element in elements {
                assert_eq!(add(&mut bytes, element.as_bytes(), 3000), Ok(true));
            }
            assert_eq!(bytes[HEADER..], *want);
            assert!(cached(&bytes).is_none());
        }
        let mut bytes = empty();
        for element in ["foo", "bar", "zap"] {
            add(&mut bytes, element.as_bytes(), 3000).unwrap();
        }
        assert_eq!(bytes[HEADER..], *b"\\\xb3\x90B\x07\x84HX\x80X\xe7");
        assert_eq!(count(&bytes), Ok(3));
    }

    /// The estimates are those of Redis 7.4.1.
    #[test]
    fn estimates_are_those_of_redis() {
        let (mut many, mut few) = (empty(), empty());
        for n in 1..=1000 {
            add(&mut many, format!("e{n}").as_bytes(), 3000).unwrap();
        }
        assert_eq!((count(&many), is_sparse(&many)), (Ok(1008), true));
        for n in 1001..=20_000 {
            add(&mut many, format!("e{n}").as_bytes(), 3000).unwrap();
        }
        assert_eq!((count(&many), is_sparse(&many)), (Ok(19_899), false));
        for n in 1..=100 {
            add(&mut few, format!("f{n}").as_bytes(), 3000).unwrap();
        }
        let mut union = Union::default();
        union.merge(&many).unwrap();
        union.merge(&few).unwrap();
        assert_eq!((count(&few), union.count()), (Ok(100), 20_007));
    }

    #[test]
    fn both_encodings_hold_the_same_registers() {
        self_test().unwrap();
        let mut rng = Rng::new(3);
        let (mut sparse, mut dense) = (empty(), empty());
        make_dense(&mut dense).unwrap();
        for _ in 0..3000 {
            let (register, value) = (rng.below(200) as usize, 1 + rng.below(32) as u8);
            assert_eq!(
                raise(&mut sparse, register, value, usize::MAX),
                raise(&mut dense, register, value, 0)
            );
        }
        let mut union = Union::default();
        union.merge(&sparse).unwrap();
        assert_eq!(count(&sparse), Ok(union.count()));
        make_dense(&mut sparse).unwrap();
        assert!(sparse[HEADER..] == dense[HEADER..], "the registers differ");
    }

    #[test]
    fn runs_that_do_not_cover_the_registers_are_refused() {
        let mut short = empty();
        short.truncate(HEADER);
        assert_eq!(count(&short), Err(Corrupted));
        assert_eq!(add(&mut short, b"x", 3000), Err(Corrupted));
        let mut long = empty();
        long.extend(b"\x7f\xff");
        assert!(is_valid(&long));
        assert_eq!((count(&long), make_dense(&mut long.clone())), (Err(Corrupted), Err(Corrupted)));
        long[16..].copy_from_slice(b"\x7f\xff\x7f\x80");
        assert_eq!(count(&long), Err(Corrupted));
        assert_eq!(count(&long[..17]), Err(Corrupted));
    }
}
