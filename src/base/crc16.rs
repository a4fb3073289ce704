//! The slot of a key: CRC-16/XMODEM of the key or of its hash tag, modulo 16384.
//! Source: Redis Cluster specification, "Key distribution model" and "Hash tags".

/// Number of slots of the keyspace.
pub const SLOTS: usize = 16384;

/// `TABLES[k][b]` is the CRC of byte `b` followed by `k` zero bytes, so that eight bytes fold in one step.
static TABLES: [[u16; 256]; 8] = tables();

const fn tables() -> [[u16; 256]; 8] {
    let mut t = [[0u16; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        t[0][byte] = crc;
        byte += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut byte = 0;
        while byte < 256 {
            let prev = t[k - 1][byte];
            t[k][byte] = (prev << 8) ^ t[0][(prev >> 8) as usize];
            byte += 1;
        }
        k += 1;
    }
    t
}

/// Folds eight bytes into a CRC.
#[inline(always)]
fn fold(crc: u16, word: u64) -> u16 {
    let c = (word ^ u64::from(crc) << 48).to_be_bytes();
    TABLES[7][usize::from(c[0])]
        ^ TABLES[6][usize::from(c[1])]
        ^ TABLES[5][usize::from(c[2])]
        ^ TABLES[4][usize::from(c[3])]
        ^ TABLES[3][usize::from(c[4])]
        ^ TABLES[2][usize::from(c[5])]
        ^ TABLES[1][usize::from(c[6])]
        ^ TABLES[0][usize::from(c[7])]
}

/// Calls `f` with the words of `bytes`, eight bytes each in big-endian order. The first is filled up with
/// zeros in front: they leave a CRC of 0 as it is.
#[inline(always)]
fn each_word(bytes: &[u8], mut f: impl FnMut(u64)) {
    let odd = bytes.len() % 8;
    if odd != 0 {
        f(match bytes.first_chunk() {
            Some(first) => u64::from_be_bytes(*first) >> (64 - 8 * odd),
            None => bytes.iter().fold(0, |word, b| word << 8 | u64::from(*b)),
        });
    }
    for word in bytes[odd..].as_chunks().0 {
        f(u64::from_be_bytes(*word));
    }
}

/// CRC-16/XMODEM: polynomial 0x1021, initial value 0, no reflection.
#[inline]
pub fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0;
    each_word(bytes, |word| crc = fold(crc, word));
    crc
}

/// The slot that `key` lives in, in `0..16384`. Only what stands between the first `{` and the
/// next `}` counts, if that is not empty.
#[inline]
pub fn key_slot(key: &[u8]) -> u16 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (mut crc, mut brace) = (0, 0);
    // Nearly no key has a brace, so one pass computes the CRC of it all and looks for one.
    each_word(key, |word| {
        let x = word ^ (ONES * b'{' as u64);
        brace |= x.wrapping_sub(ONES) & !x;
        crc = fold(crc, word);
    });
    if brace & (ONES << 7) != 0
        && let Some(tag) = hash_tag(key)
    {
        crc = crc16(tag);
    }
    crc & (SLOTS as u16 - 1)
}

/// The slot of every key that begins with `prefix`, if a hash tag in it tells.
pub fn tagged_slot(prefix: &[u8]) -> Option<u16> {
    hash_tag(prefix).map(|tag| crc16(tag) & (SLOTS as u16 - 1))
}

#[cold]
fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = memchr::memchr(b'{', key)?;
    let len = memchr::memchr(b'}', &key[open + 1..])?;
    (len > 0).then(|| &key[open + 1..open + 1 + len])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn known_values() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(key_slot(b"user:123"), 12893);
        assert_eq!(key_slot(b"foo"), 12182);
        assert_eq!(key_slot(b"{user1000}.following"), key_slot(b"{user1000}.followers"));
        assert_eq!(key_slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") & 16383);
        assert_eq!(key_slot(b"foo{{bar}}zap"), crc16(b"{bar") & 16383);
        assert_eq!(key_slot(b"foo{bar}{zap}"), crc16(b"bar") & 16383);
    }

    #[test]
    fn agrees_with_the_crc16_crate() {
        let mut rng = Rng::new(1);
        for len in 0..200 {
            let mut key = vec![0; len];
            rng.fill(&mut key);
            assert_eq!(crc16(&key), crc16::State::<crc16::XMODEM>::calculate(&key));
        }
    }
}
