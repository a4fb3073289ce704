//! DEBUG DIGEST: twenty bytes that are equal if and only if two data sets are, whatever their order,
//! computed as Redis does so that nodes of both kinds can be compared.
//!
//! *xor* adds the SHA-1 of some bytes to a digest, which forgets the order; *mix* does the same and then
//! hashes the digest itself, which keeps it. Facts: behaviour of Redis 7.0.

use sha1::{Digest as _, Sha1};

use super::{Kind, ValueRef};
use crate::encoding::{Item, item::IntText};

/// A digest being computed, or done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(pub [u8; 20]);

impl Digest {
    /// Adds bytes in a way that does not depend on the order of such additions.
    pub fn xor(&mut self, bytes: &[u8]) {
        let hash = Sha1::digest(bytes);
        self.0.iter_mut().zip(hash).for_each(|(d, h)| *d ^= h);
    }

    /// Adds bytes in a way that depends on what was added before.
    pub fn mix(&mut self, bytes: &[u8]) {
        self.xor(bytes);
        self.0 = Sha1::digest(self.0).into();
    }

    fn mix_item(&mut self, item: Item<'_>) {
        self.mix(item.text(&mut IntText::new()));
    }

    /// Begins with the keys of a database. Databases without keys are left out.
    pub fn begin_database(&mut self, index: u32) {
        self.mix(&index.to_be_bytes());
    }

    /// Adds a key with its value to a data set's digest.
    pub fn add_key(&mut self, key: &[u8], value: ValueRef<'_>, expires: bool) {
        let mut one = Digest::default();
        one.mix(key);
        one.add_value(value, expires);
        self.xor(&one.0);
    }

    /// Adds a value; DEBUG DIGEST-VALUE begins with an empty digest.
    pub fn add_value(&mut self, value: ValueRef<'_>, expires: bool) {
        self.mix(&type_number(value.kind()).to_be_bytes());
        match value {
            ValueRef::String(s) => self.mix(s),
            ValueRef::List(list) => list.iter().for_each(|item| self.mix_item(item)),
            ValueRef::Set(set) => set.iter().for_each(|item| self.xor(item.text(&mut IntText::new()))),
            ValueRef::SortedSet(set) => {
                for (member, score) in set.iter() {
                    let mut one = Digest::default();
                    one.mix_item(member);
                    one.mix(score_text(score).as_bytes());
                    self.xor(&one.0);
                }
            }
            ValueRef::Hash(hash) => {
                for (field, value) in hash.iter() {
                    let mut one = Digest::default();
                    one.mix_item(field);
                    one.mix_item(value);
                    self.xor(&one.0);
                }
            }
            ValueRef::Stream(stream) => {
                for entry in stream.iter() {
                    self.mix(format!("{}.{}", entry.id.ms, entry.id.seq).as_bytes());
                    for (field, value) in entry.fields {
                        self.mix_item(field);
                        self.mix_item(value);
                    }
                }
            }
        }
        if expires {
            self.xor(b"!!expire!!");
        }
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

fn type_number(kind: Kind) -> u32 {
    match kind {
        Kind::String => 0,
        Kind::List => 1,
        Kind::Set => 2,
        Kind::SortedSet => 3,
        Kind::Hash => 4,
        Kind::Stream => 6,
    }
}

/// `%.17g` of C: seventeen significant digits, trailing zeros dropped, an exponent where it is below -4
/// or above 16.
fn score_text(x: f64) -> String {
    if x.is_infinite() {
        return if x > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let digits = format!("{x:.16e}");
    let (mantissa, exponent) = digits.split_once('e').expect("exponent form always has an e");
    let exponent: i32 = exponent.parse().expect("exponent of a finite double");
    let trim = |s: &str| match s.contains('.') {
        true => s.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => s.to_owned(),
    };
    if (-4..17).contains(&exponent) {
        trim(&format!("{x:.*}", (16 - exponent) as usize))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", trim(mantissa), exponent.abs())
    }
}
