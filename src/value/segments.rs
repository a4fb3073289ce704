//! An array that grows without ever moving much: fixed-size segments behind a directory.

use std::ops::{Index, IndexMut};

/// Elements a segment, once the array has grown to one; below that it doubles.
const SEGMENT: usize = 256;

/// A growing array whose elements are default-valued until they are used.
#[derive(Clone)]
pub struct Segments<T> {
    /// All of [`SEGMENT`] elements, except that a single one may be shorter (a power of two).
    segments: Vec<Box<[T]>>,
    len: usize,
}

impl<T: Default> Segments<T> {
    pub const fn new() -> Self {
        Self { segments: Vec::new(), len: 0 }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Elements that there is memory for.
    pub fn capacity(&self) -> usize {
        self.segments.iter().map(|s| s.len()).sum()
    }

    /// Appends a default value.
    pub fn push(&mut self) {
        if self.len == 0 {
            self.segments = vec![filled(1)];
        } else if self.len == self.segments.len() * SEGMENT {
            self.segments.push(filled(SEGMENT));
        } else if self.segments.len() == 1 && self.len == self.segments[0].len() {
            let mut grown = filled(2 * self.len);
            for (to, from) in grown.iter_mut().zip(&mut self.segments[0]) {
                *to = std::mem::take(from);
            }
            self.segments[0] = grown;
        }
        self.len += 1;
    }

    /// Removes the last element; there is one.
    pub fn pop(&mut self) -> T {
        self.len -= 1;
        let at = self.len;
        let last = std::mem::take(&mut self[at]);
        // Half a segment of slack, so that a length going up and down around a multiple does not allocate.
        if self.len == 0 {
            self.segments = Vec::new();
        } else if self.segments.len() > 1 && self.len + SEGMENT / 2 <= (self.segments.len() - 1) * SEGMENT {
            self.segments.pop();
        }
        last
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.segments.iter().flatten().take(self.len)
    }
}

impl<T> Index<usize> for Segments<T> {
    type Output = T;

    #[inline]
    fn index(&self, i: usize) -> &T {
        &self.segments[i / SEGMENT][i % SEGMENT]
    }
}

impl<T> IndexMut<usize> for Segments<T> {
    #[inline]
    fn index_mut(&mut self, i: usize) -> &mut T {
        &mut self.segments[i / SEGMENT][i % SEGMENT]
    }
}

fn filled<T: Default>(n: usize) -> Box<[T]> {
    std::iter::repeat_with(T::default).take(n).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_stay_where_they_are_through_growth_and_shrinking() {
        let mut s = Segments::<usize>::new();
        let n = if cfg!(miri) { 300 } else { 2000 };
        for i in 0..n {
            s.push();
            s[i] = i;
            assert!(s.capacity() < 2 * (i + SEGMENT));
        }
        assert!(s.iter().copied().eq(0..n));
        for i in (0..n).rev() {
            assert_eq!(s.pop(), i);
            assert!(s.iter().copied().eq(0..i));
        }
        assert_eq!(s.capacity(), 0);
    }
}
