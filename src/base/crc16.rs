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

/// CRC-16/XMODEM: polynomial 0x1021, initial value 0, no reflection.
#[inline]
pub fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0u16;
    let mut chunks = bytes.chunks_exact(8);
    for c in &mut chunks {
        crc = TABLES[7][usize::from(c[0] ^ (crc >> 8) as u8)]
            ^ TABLES[6][usize::from(c[1] ^ crc as u8)]
            ^ TABLES[5][usize::from(c[2])]
            ^ TABLES[4][usize::from(c[3])]
            ^ TABLES[3][usize::from(c[4])]
            ^ TABLES[2][usize::from(c[5])]
            ^ TABLES[1][usize::from(c[6])]
            ^ TABLES[0][usize::from(c[7])];
    }
    for &b in chunks.remainder() {
        crc = (crc << 8) ^ TABLES[0][usize::from((crc >> 8) as u8 ^ b)];
    }
    crc
}

/// The slot that `key` lives in, in `0..16384`. Only what stands between the first `{` and the
/// next `}` counts, if that is not empty.
#[inline]
pub fn key_slot(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) & (SLOTS as u16 - 1)
}

#[inline]
fn hash_tag(key: &[u8]) -> &[u8] {
    if has_brace(key)
        && let Some(open) = memchr::memchr(b'{', key)
        && let Some(len) = memchr::memchr(b'}', &key[open + 1..])
        && len > 0
    {
        return &key[open + 1..open + 1 + len];
    }
    key
}

/// Whether `key` may hold a `{`: eight bytes at a time, since nearly no key has one. May err
/// towards true.
#[inline]
fn has_brace(key: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut chunks = key.chunks_exact(8);
    let mut hit = false;
    for c in &mut chunks {
        let x = u64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]) ^ (ONES * b'{' as u64);
        hit |= x.wrapping_sub(ONES) & !x & (ONES << 7) != 0;
    }
    hit || chunks.remainder().contains(&b'{')
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
