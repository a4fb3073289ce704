//! LZF, the compression of RDB strings.
//!
//! A stream is a sequence of two kinds of steps. A control byte below 32 copies the next `control + 1`
//! bytes. Any other holds a length in its upper three bits (7: the next byte is added) and the upper five
//! bits of a distance whose lower eight follow; it repeats `length + 2` bytes from `distance + 1` back.
//!
//! The `lzf` crate clears a table of 512 KiB for every call, which costs more than the rest of a small
//! entry does, so that its codec only checks this one in the tests.

const MAX_LITERALS: usize = 32;
const MAX_DISTANCE: usize = 1 << 13;
const MAX_MATCH: usize = 2 + 7 + 255;
/// The best possible ratio: three bytes for the longest match.
const MAX_RATIO: usize = MAX_MATCH / 3;

/// Appends the compressed form of `input` to `out` if it takes at most `limit` bytes; otherwise leaves
/// `out` as it was and returns false.
pub fn compress(input: &[u8], limit: usize, out: &mut Vec<u8>) -> bool {
    // A table that is small beside the input keeps its clearing cheap.
    match input.len() {
        0..=3 => false,
        4..=64 => compress_with(input, limit, out, &mut [0u16; 1 << 8]),
        65..=512 => compress_with(input, limit, out, &mut [0u16; 1 << 10]),
        513..=4096 => compress_with(input, limit, out, &mut [0u16; 1 << 12]),
        _ => compress_with(input, limit, out, &mut [0u16; 1 << 14]),
    }
}

/// `table` remembers, by a hash of three bytes, the lower 16 bits of the position where they were last seen.
/// What it yields is a guess: every match is compared before it is used.
fn compress_with<const N: usize>(
    input: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
    table: &mut [u16; N],
) -> bool {
    let start = out.len();
    let (mut pos, mut literals_from) = (0, 0);
    while let Some(here) = three_at(input, pos) {
        let seen = &mut table[hash(here) & (N - 1)];
        let distance = usize::from((pos as u16).wrapping_sub(*seen));
        *seen = pos as u16;
        if distance == 0 || distance > MAX_DISTANCE.min(pos) || three_at(input, pos - distance) != Some(here)
        {
            // Longer strides where nothing has matched for a while.
            pos += 1 + ((pos - literals_from) >> 6);
            continue;
        }
        let length = match_length(input, pos, distance);
        push_literals(&input[literals_from..pos], out);
        push_match(length, distance, out);
        if out.len() - start > limit {
            out.truncate(start);
            return false;
        }
        // The last places within a match are remembered, too: what follows it often begins there.
        for behind in [pos + length - 2, pos + length - 1] {
            if let Some(there) = three_at(input, behind) {
                table[hash(there) & (N - 1)] = behind as u16;
            }
        }
        pos += length;
        literals_from = pos;
    }
    let rest = &input[literals_from..];
    if out.len() - start + rest.len() + rest.len().div_ceil(MAX_LITERALS) > limit {
        out.truncate(start);
        return false;
    }
    push_literals(rest, out);
    true
}

/// The three bytes from `pos` on, which a match has at least. They are loaded with a fourth, so that the last
/// three bytes of an input are never found; that costs less than to look at bytes one by one.
#[inline]
fn three_at(input: &[u8], pos: usize) -> Option<u32> {
    let four = input.get(pos..pos + 4)?;
    Some(u32::from_le_bytes([four[0], four[1], four[2], 0]))
}

#[inline]
fn hash(three: u32) -> usize {
    (three.wrapping_mul(0x9e37_79b1) >> 17) as usize
}

fn match_length(input: &[u8], pos: usize, distance: usize) -> usize {
    let most = (input.len() - pos).min(MAX_MATCH);
    let (old, new) = (&input[pos - distance..], &input[pos..pos + most]);
    let mut n = 3;
    while n < most && old[n] == new[n] {
        n += 1;
    }
    n
}

fn push_literals(bytes: &[u8], out: &mut Vec<u8>) {
    for run in bytes.chunks(MAX_LITERALS) {
        out.push((run.len() - 1) as u8);
        out.extend_from_slice(run);
    }
}

fn push_match(length: usize, distance: usize, out: &mut Vec<u8>) {
    let (length, distance) = (length - 2, distance - 1);
    let high = (distance >> 8) as u8;
    if length < 7 {
        out.push((length as u8) << 5 | high);
    } else {
        out.extend_from_slice(&[7 << 5 | high, (length - 7) as u8]);
    }
    out.push(distance as u8);
}

/// Restores exactly `length` bytes. `None` if the stream is damaged or yields another length; a length that
/// no stream of this size can yield is refused before anything is allocated.
pub fn decompress(input: &[u8], length: usize) -> Option<Vec<u8>> {
    if length > input.len().saturating_mul(MAX_RATIO) {
        return None;
    }
    let mut out = Vec::with_capacity(length);
    decompress_to(input, length, &mut out).then_some(out)
}

/// Restores exactly `length` bytes into `out`, which is empty; false as for [`decompress`].
pub fn decompress_to(mut input: &[u8], length: usize, out: &mut Vec<u8>) -> bool {
    while let Some((&control, rest)) = input.split_first() {
        let control = usize::from(control);
        let rest = if control < MAX_LITERALS {
            copy_literals(control + 1, rest, length, out)
        } else {
            copy_match(control, rest, length, out)
        };
        let Some(rest) = rest else { return false };
        input = rest;
    }
    out.len() == length
}

fn copy_literals<'a>(count: usize, rest: &'a [u8], limit: usize, out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (run, rest) = rest.split_at_checked(count)?;
    if run.len() > limit - out.len() {
        return None;
    }
    out.extend_from_slice(run);
    Some(rest)
}

fn copy_match<'a>(control: usize, mut rest: &'a [u8], limit: usize, out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let mut count = control >> 5;
    if count == 7 {
        let (&more, after) = rest.split_first()?;
        count += usize::from(more);
        rest = after;
    }
    count += 2;
    let (&low, rest) = rest.split_first()?;
    let distance = ((control & 0x1f) << 8 | usize::from(low)) + 1;
    let from = out.len().checked_sub(distance)?;
    if count > limit - out.len() {
        return None;
    }
    // A match may reach into what it is just writing, so it is copied in pieces that already exist.
    let mut from = from;
    while count > 0 {
        let piece = count.min(out.len() - from);
        out.extend_from_within(from..from + piece);
        from += piece;
        count -= piece;
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packed(input: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![];
        compress(input, input.len(), &mut out).then_some(out)
    }

    #[test]
    fn golden_bytes() {
        // What redis-server 7.0.15 stores for 40 times `a`: one literal, a match of 39 at distance 1.
        assert_eq!(packed(&[b'a'; 40]), Some(vec![0, b'a', 7 << 5, 39 - 9, 0]));
        assert_eq!(decompress(&[1, b'a', b'a', 7 << 5, 27, 0, 1, b'a', b'a'], 40), Some(vec![b'a'; 40]));
    }

    #[test]
    fn incompressible_input_leaves_no_trace() {
        let mut out = b"kept".to_vec();
        let input: Vec<u8> = (0..200).collect();
        assert!(!compress(&input, input.len() - 4, &mut out));
        assert_eq!(out, b"kept");
    }

    #[test]
    fn impossible_lengths_are_refused_before_allocation() {
        assert_eq!(decompress(&[0, b'a', 7 << 5, 255, 0], usize::MAX), None);
        assert_eq!(decompress(&[0, b'a', 7 << 5, 255, 0], 264), None);
        assert_eq!(decompress(&[0, b'a', 7 << 5, 255, 0], 265).map(|v| v.len()), Some(265));
        assert_eq!(decompress(&[32, 5], 3), None, "a match before the beginning");
        assert_eq!(decompress(&[], 0), Some(vec![]));
    }

    proptest! {
        #[test]
        fn both_codecs_read_each_other(
            words in prop::collection::vec(prop::sample::select(vec!["abc", "key:", "0000", "z", "The quick", "\u{7}"]), 0..4000)
        ) {
            let input = words.concat().into_bytes();
            if let Some(p) = packed(&input) {
                prop_assert_eq!(decompress(&p, input.len()), Some(input.clone()));
                prop_assert_eq!(lzf::decompress(&p, input.len()).ok(), Some(input.clone()));
            }
            if let Ok(theirs) = lzf::compress(&input) {
                prop_assert_eq!(decompress(&theirs, input.len()), Some(input));
            }
        }

        #[test]
        fn long_inputs_round_trip(seed: u64, len in 60_000usize..150_000, period in 1usize..9000) {
            let mut rng = crate::base::rng::Rng::new(seed);
            let mut input = vec![0; len];
            rng.fill(&mut input[..period]);
            for i in period..len {
                input[i] = input[i - period];
            }
            if let Some(p) = packed(&input) {
                prop_assert_eq!(decompress(&p, len), Some(input));
            }
        }

        #[test]
        fn noise_never_panics(input in prop::collection::vec(any::<u8>(), 0..300), len in 0usize..5000) {
            let _ = decompress(&input, len);
        }
    }
}
