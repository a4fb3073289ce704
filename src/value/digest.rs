//! DEBUG DIGEST: twenty bytes that are equal if and only if two data sets are, whatever their order,
//! computed as Redis does so that nodes of both kinds can be compared.
//!
//! *xor* adds the SHA-1 of some bytes to a digest, which forgets the order; *mix* does the same and then
//! hashes the digest itself, which keeps it. Facts: behaviour of Redis 7.0.

use sha1::{Digest as _, Sha1};

use super::{Kind, ValueRef};
use crate::base::hex::hex;
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
            ValueRef::List(list) => list.for_each(|item| self.mix_item(item)),
            ValueRef::Set(set) => set.iter().for_each(|item| self.xor(item.text(&mut IntText::new()))),
            ValueRef::SortedSet(set) => {
                for (member, score) in set {
                    let mut one = Digest::default();
                    one.mix_item(member);
                    one.mix(score_text(score).as_bytes());
                    self.xor(&one.0);
                }
            }
            ValueRef::Hash(hash) => {
                for (field, value, at) in hash.iter_timed() {
                    let mut one = Digest::default();
                    one.mix_item(field);
                    one.mix_item(value);
                    if at.is_some() {
                        one.xor(b"!!hexpire!!");
                    }
                    self.xor(&one.0);
                }
            }
            ValueRef::Stream(stream) => {
                for entry in stream {
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
        f.write_str(&hex(&self.0))
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
    let trim = |s: &str| {
        let end = if s.contains('.') { s.trim_end_matches('0').trim_end_matches('.').len() } else { s.len() };
        s[..end].to_owned()
    };
    if (-4..17).contains(&exponent) {
        trim(&format!("{x:.*}", (16 - exponent) as usize))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", trim(mantissa), exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::value::{Hash, Limits, List, Set, SortedSet, Stream, StreamId, Value};

    /// Compact encodings, or with `large` the other ones.
    fn sample(large: bool) -> Vec<(&'static str, Value, &'static str)> {
        let mut limits = Limits::default();
        if large {
            limits.hash_max_listpack_entries = 0;
            limits.list_max_listpack_size = 1;
            limits.set_max_intset_entries = 0;
            limits.set_max_listpack_entries = 0;
            limits.zset_max_listpack_entries = 0;
            limits.stream_node_max_entries = 2;
        }
        let string = |s: &str| Value::String(Arc::new(s.as_bytes().to_vec()));
        let (mut list, mut ints, mut mixed) = (List::new(), Set::new(), Set::new());
        for v in ["a", "b", "1", "-5", "cccccccccccccccccccc"] {
            list.push_back(v.as_bytes(), &limits);
        }
        for m in ["3", "1", "2", "-70000"] {
            assert!(ints.add(m.as_bytes(), &limits));
        }
        for m in ["a", "b", "17"] {
            assert!(mixed.add(m.as_bytes(), &limits));
        }
        let mut zset = SortedSet::new();
        for (score, member) in [
            (1.0, "one"),
            (2.5, "two"),
            (f64::NEG_INFINITY, "low"),
            (f64::INFINITY, "high"),
            (0.1, "tenth"),
            (1e20, "big"),
            (314_159.0 / 100_000.0, "pi"),
            (1e-7, "tiny"),
            (1e5, "hk"),
            (123456789012345680.0, "large"),
            (-0.5, "neg"),
            (17.0, "17"),
        ] {
            zset.add(member.as_bytes(), score, &limits);
        }
        let mut hash = Hash::new();
        for (f, v) in [("f1", "v1"), ("f2", "22"), ("f3", "-3.5")] {
            assert!(hash.set(f.as_bytes(), v.as_bytes(), &limits));
        }
        let mut stream = Stream::new();
        stream.append(StreamId::new(1, 1), &["a", "1", "b", "2"], &limits);
        stream.append(StreamId::new(1, 2), &["a", "3", "b", "4"], &limits);
        stream.append(StreamId::new(5, 0), &["c", "x"], &limits);
        stream.append(StreamId::new(6, 0), &["a", "9", "b", "9"], &limits);
        assert!(stream.remove(StreamId::new(1, 2)));
        vec![
            ("str", string("hello"), "36b23a1456b2dce2c3ed252c456761301dba8060"),
            ("num", string("12345"), "e1cf90774e995ae03de66e8109dc5cb9d9c2dc83"),
            ("exp", string("v"), "311b17018163335616e089f6b951c82c477335ac"),
            ("list", Value::List(Box::new(list)), "bf372931ae24f317bc8d57b0f4d44f91193dac75"),
            ("ints", Value::Set(ints), "3f29aef9686ab7640c6e79734f56219f6f27dcac"),
            ("mixed", Value::Set(mixed), "da8febe0eef810e442dfab4099e326584070379a"),
            ("z", Value::SortedSet(zset), "732b173c24e4614aebc8bece0879c0a5ac8086b5"),
            ("h", Value::Hash(hash), "9fb7f07927e700efb2c2ff2c7f9791eb02fd25ed"),
            ("s", Value::Stream(Box::new(stream)), "8e859514b364c9e0e7bc26345bfc00e7e34efa7a"),
        ]
    }

    /// The digests are what DEBUG DIGEST-VALUE and DEBUG DIGEST of redis-server 7.0.15 said of these values.
    #[test]
    fn the_digests_of_redis() {
        for large in [false, true] {
            let mut all = Digest::default();
            all.begin_database(0);
            for (key, value, want) in sample(large) {
                let mut one = Digest::default();
                one.add_value(value.as_ref(), key == "exp");
                assert_eq!(one.to_string(), want, "{key}, {}", value.as_ref().encoding_name());
                all.add_key(key.as_bytes(), value.as_ref(), key == "exp");
            }
            assert_eq!(all.to_string(), "05af1b10cf986eea61f1fd3b75e38eaab08c5545");
            all.begin_database(3);
            all.add_key(b"other", ValueRef::String(b"1"), false);
            assert_eq!(all.to_string(), "a39bb6b58068b8713042754914d1be1f01d5ced5");
        }
    }

    #[test]
    fn scores_as_c_prints_them() {
        for (x, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.10000000000000001"),
            (2.7, "2.7000000000000002"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (1.5e300, "1.5000000000000001e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1.0000000000000001e-05"),
            (123456.789, "123456.789"),
            (-2.5, "-2.5"),
        ] {
            assert_eq!(score_text(x), text);
        }
    }
}
