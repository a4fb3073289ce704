//! What the allocator rounds a request up to. Source: jemalloc(3), "Size classes".

/// The bytes that an allocation of `n` takes: multiples of 8 up to 64, then four sizes a doubling. (`.cargo/config.toml`
/// builds jemalloc so.)
///
/// A request for the whole class wastes nothing, and what is allocated can often grow in place.
#[inline]
pub fn size_class(n: usize) -> usize {
    let step = if n <= 64 { 8 } else { 1 << ((n - 1).ilog2() - 2) };
    n.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classes_are_those_of_the_manual() {
        let classes = [
            8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640,
            768, 896, 1024, 1280, 1536, 1792, 2048, 2560,
        ];
        let mut next = classes.iter().peekable();
        for n in 1..=2560 {
            assert_eq!(Some(&&size_class(n)), next.peek(), "{n} bytes");
            next.next_if(|class| **class == n);
        }
        assert_eq!((size_class(0), size_class(5 << 20)), (0, 5 << 20));
        assert_eq!(size_class((5 << 20) + 1), 6 << 20);
    }
}
