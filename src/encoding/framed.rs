//! Bytes that state their own length in their first bytes, owned through one thin pointer.
//!
//! There may be very many small collections, so each word counts. A listpack in a `Vec` takes 24 bytes and the spare
//! capacity that doubling leaves; here it takes 8 bytes, and the spare capacity is what the allocator would round up
//! to anyway. With a hash of ten short fields that measured 240 bytes instead of 288.
//!
//! The `unsafe` of packed encodings is all in this file. What holds: the pointer owns an allocation of
//! `size_class(F::total(..))` bytes, of which the first `F::total(..)` are initialised.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use crate::base::size_class::size_class;

const ALIGN: usize = 8;

/// How the bytes state their length.
pub trait Frame {
    /// Bytes that [`Frame::total`] reads.
    const HEADER: usize;

    /// The length of the whole, header included. At least `HEADER`.
    fn total(header: &[u8]) -> usize;
}

/// Owned bytes whose frame is `F`: one pointer, which is aligned to [`Framed::ALIGN`].
#[repr(transparent)]
pub struct Framed<F: Frame>(NonNull<u8>, PhantomData<F>);

// SAFETY: plain owned bytes.
unsafe impl<F: Frame> Send for Framed<F> {}
// SAFETY: as above; shared access only reads.
unsafe impl<F: Frame> Sync for Framed<F> {}

impl<F: Frame> Framed<F> {
    /// Bytes of the pointer's alignment, which leaves bits of it for others.
    pub const ALIGN: usize = ALIGN;

    /// A copy of bytes that state their right length.
    pub fn new(bytes: &[u8]) -> Self {
        const { assert!(F::HEADER > 0, "a frame is not empty") };
        assert!(bytes.len() >= F::HEADER && F::total(bytes) == bytes.len(), "the frame is right");
        let layout = layout(bytes.len());
        // SAFETY: the layout is not empty and has room for the bytes.
        unsafe {
            let p = alloc(layout);
            let Some(p) = NonNull::new(p) else { handle_alloc_error(layout) };
            ptr::copy_nonoverlapping(bytes.as_ptr(), p.as_ptr(), bytes.len());
            Self(p, PhantomData)
        }
    }

    /// Bytes of the whole.
    #[inline]
    pub fn total(&self) -> usize {
        // SAFETY: the header is always there and initialised.
        F::total(unsafe { std::slice::from_raw_parts(self.0.as_ptr(), F::HEADER) })
    }

    /// The whole allocation, header included.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: as many bytes as the header says are there and initialised.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.total()) }
    }

    /// Heap bytes.
    pub fn memory_bytes(&self) -> usize {
        size_class(self.total())
    }

    /// Replaces `old` bytes at `at`, which is behind the header, by `new` bytes that `fill` writes, and
    /// the header by one that states the length which results.
    #[inline]
    pub fn splice(&mut self, header: &[u8], at: usize, old: usize, new: usize, fill: impl FnOnce(&mut [u8])) {
        let before = self.total();
        let tail = before.checked_sub(at).and_then(|n| n.checked_sub(old));
        let (Some(tail), true) = (tail, at >= F::HEADER) else { panic!("a place within the bytes") };
        let after = before - old + new;
        assert!(header.len() == F::HEADER && F::total(header) == after, "the frame is right");
        if after > before {
            self.reallocate(before, after);
        }
        // SAFETY: `at`, `old` and `new` are within the old and the new length, for both of which there is
        // room, as the one that is greater was allocated. Nothing between here and the header can unwind,
        // so header and allocation stay in step. Bytes that a longer gap opens are zeroed before anyone sees them.
        let gap = unsafe {
            let base = self.0.as_ptr();
            ptr::copy(base.add(at + old), base.add(at + new), tail);
            if new > old {
                ptr::write_bytes(base.add(at + old), 0, new - old);
            }
            ptr::copy_nonoverlapping(header.as_ptr(), base, F::HEADER);
            if after < before {
                self.reallocate(before, after);
            }
            std::slice::from_raw_parts_mut(self.0.as_ptr().add(at), new)
        };
        fill(gap);
    }

    /// Fits the allocation to a new length.
    #[inline]
    fn reallocate(&mut self, before: usize, after: usize) {
        let (from, to) = (layout(before), layout(after));
        if from == to {
            return;
        }
        // SAFETY: `from` is the layout of the allocation, and `to` is not empty.
        let p = unsafe { realloc(self.0.as_ptr(), from, to.size()) };
        let Some(p) = NonNull::new(p) else { handle_alloc_error(to) };
        self.0 = p;
    }
}

impl<F: Frame> Drop for Framed<F> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the layout of the allocation.
        unsafe { dealloc(self.0.as_ptr(), layout(self.total())) };
    }
}

impl<F: Frame> Clone for Framed<F> {
    fn clone(&self) -> Self {
        Self::new(self.bytes())
    }
}

impl<F: Frame> PartialEq for Framed<F> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl<F: Frame> Eq for Framed<F> {}

/// Takes the whole size class, so that most growth is in place. Not empty, as no frame is.
#[inline]
fn layout(n: usize) -> Layout {
    Layout::from_size_align(size_class(n), ALIGN).expect("frames are below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    struct Plain;
    impl Frame for Plain {
        const HEADER: usize = 4;
        fn total(header: &[u8]) -> usize {
            u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize
        }
    }

    #[test]
    fn splices_as_a_vector_does() {
        let mut rng = Rng::new(1);
        let mut model = vec![4, 0, 0, 0];
        let mut framed = Framed::<Plain>::new(&model);
        for i in 0..if cfg!(miri) { 300 } else { 20_000 } {
            let at = 4 + rng.below(model.len() as u64 - 3) as usize;
            let old = rng.below((model.len() - at) as u64 + 1).min(60) as usize;
            let new = if model.len() > 3000 { 0 } else { rng.below(70) as usize };
            model.splice(at..at + old, vec![i as u8; new]);
            let total = (model.len() as u32).to_le_bytes();
            model[..4].copy_from_slice(&total);
            framed.splice(&total, at, old, new, |gap| gap.fill(i as u8));
            assert_eq!(framed.bytes(), model);
        }
        assert!(framed.clone() == framed);
    }

    #[test]
    #[should_panic(expected = "the frame is right")]
    fn a_wrong_length_is_our_own_bug() {
        Framed::<Plain>::new(&[4, 0, 0, 0]).splice(&[200, 0, 0, 0], 4, 0, 1, |_| {});
    }
}
