//! Hexadecimal digits, in lower case, as Redis writes hashes and ids.

use super::rng::Rng;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Two digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|n| char::from(DIGITS[usize::from(n)])).collect()
}

/// One drawn digit.
pub fn random_digit(rng: &mut Rng) -> u8 {
    DIGITS[rng.below(16) as usize]
}

/// Forty drawn digits, as run ids and replication ids are.
pub fn random_id(rng: &mut Rng) -> String {
    (0..40).map(|_| char::from(random_digit(rng))).collect()
}
