//! A record: what a large collection keeps of one element, in one allocation behind one word.
//!
//! The word is the allocation's address with the two bytes that addresses leave free put to use: the
//! key's length and eight bits of its hash. A table of such words rejects nearly every wrong candidate
//! without touching the allocation, and a 16-byte member takes 16 bytes of heap and no header. Against
//! boxed slices this measured 26 instead of 52 bytes a member, and one cache miss less a lookup.
//!
//! ```text
//! word:        tag (8) | key length or 255 (8) | address (48)
//! allocation:  head (S::HEAD) | key length (8, only if the word says 255) | key | tail
//! tail:        nothing, or (S::TAIL) value length (1, or 255 and 4) | value
//! ```
//!
//! The `unsafe` of tables is all in this file. What holds: a word whose tag is not 0 owns an allocation
//! made by [`Record::new`] in this layout, and nobody else frees or moves it.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use crate::base::prefetch::prefetch;

/// What stands around the key.
pub trait Shape {
    /// Bytes before the key, of a fixed number.
    const HEAD: usize;
    /// Whether a value follows the key.
    const TAIL: bool;
}

const ADDRESS_BITS: u32 = 48;
const ADDRESS: usize = (1 << ADDRESS_BITS) - 1;
const LONG: usize = 255;
// An address leaves sixteen bits of a word for key length and tag; a word is read as a record or as a slot.
const _: () = assert!(usize::BITS - ADDRESS_BITS == Mark::BITS);
const _: () = assert!(size_of::<Record<Any>>() == size_of::<Slot<Any>>());

/// For the assertions above: no shape changes what a word is.
struct Any;
impl Shape for Any {
    const HEAD: usize = 0;
    const TAIL: bool = true;
}

/// The upper sixteen bits of a word: equal for equal keys.
pub type Mark = u16;

/// The mark of a key with this hash and length.
#[inline]
pub fn mark(hash: u64, key_len: usize) -> Mark {
    // A tag is never 0, which tells records from other words.
    let tag = ((hash >> 56) as u16).max(1);
    (tag << 8) | key_len.min(LONG) as u16
}

/// An owned record.
#[repr(transparent)]
pub struct Record<S: Shape>(NonNull<u8>, PhantomData<S>);

// SAFETY: a record owns plain bytes.
unsafe impl<S: Shape> Send for Record<S> {}
// SAFETY: as above; shared access only reads.
unsafe impl<S: Shape> Sync for Record<S> {}

impl<S: Shape> Record<S> {
    /// `head` is `S::HEAD` bytes, `tail` is empty unless `S::TAIL`.
    pub fn new(hash: u64, head: &[u8], key: &[u8], tail: &[u8]) -> Self {
        assert!(head.len() == S::HEAD && (S::TAIL || tail.is_empty()), "the shape's parts");
        let mark = mark(hash, key.len());
        let long = usize::from(mark & 0xff) == LONG;
        let key_at = S::HEAD + if long { 8 } else { 0 };
        let layout = layout(key_at + key.len() + tail_size::<S>(tail.len()));
        // SAFETY: the layout is not empty, and every write below stays within its size.
        unsafe {
            let base = usable(alloc(layout), layout);
            copy(head, base);
            if long {
                copy(&(key.len() as u64).to_ne_bytes(), base.add(S::HEAD));
            }
            copy(key, base.add(key_at));
            write_tail::<S>(tail, base.add(key_at + key.len()));
            let word = base.map_addr(|a| a | (usize::from(mark) << ADDRESS_BITS));
            Self(NonNull::new_unchecked(word), PhantomData)
        }
    }

    /// A copy of the word, for a reader that does not outlive this owner.
    pub fn share(&self) -> Shared<S> {
        Shared(self.0.as_ptr(), PhantomData)
    }

    #[inline]
    fn base(&self) -> *mut u8 {
        self.0.as_ptr().map_addr(|a| a & ADDRESS)
    }

    #[inline]
    fn key_place(&self) -> (usize, usize) {
        let len = (self.0.addr().get() >> ADDRESS_BITS) & 0xff;
        if len < LONG {
            return (S::HEAD, len);
        }
        // SAFETY: the word says that eight bytes of length follow the head.
        let len = unsafe { self.base().add(S::HEAD).cast::<u64>().read_unaligned() };
        (S::HEAD + 8, len as usize)
    }

    #[inline]
    pub fn key(&self) -> &[u8] {
        let (at, len) = self.key_place();
        // SAFETY: the layout of the allocation.
        unsafe { std::slice::from_raw_parts(self.base().add(at), len) }
    }

    #[inline]
    pub fn head(&self) -> &[u8] {
        // SAFETY: the layout of the allocation.
        unsafe { std::slice::from_raw_parts(self.base(), S::HEAD) }
    }

    #[inline]
    pub fn head_mut(&mut self) -> &mut [u8] {
        // SAFETY: the layout of the allocation, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.base(), S::HEAD) }
    }

    /// Where the value's bytes begin and how many they are.
    #[inline]
    fn tail_place(&self) -> (usize, usize) {
        let (at, len) = self.key_place();
        let at = at + len;
        if !S::TAIL {
            return (at, 0);
        }
        // SAFETY: shapes with a tail have its length after the key.
        unsafe {
            match *self.base().add(at) {
                255 => (at + 5, self.base().add(at + 1).cast::<u32>().read_unaligned() as usize),
                n => (at + 1, usize::from(n)),
            }
        }
    }

    /// The value.
    #[inline]
    pub fn tail(&self) -> &[u8] {
        let (at, len) = self.tail_place();
        // SAFETY: the layout of the allocation.
        unsafe { std::slice::from_raw_parts(self.base().add(at), len) }
    }

    /// Replaces the value, in place where the length is the same. Words shared before are void.
    pub fn set_tail(&mut self, tail: &[u8]) {
        assert!(S::TAIL, "the shape has a value");
        let (at, len) = self.tail_place();
        if len == tail.len() {
            // SAFETY: as many bytes as are there; `tail` cannot overlap what `self` borrows mutably.
            unsafe { copy(tail, self.base().add(at)) };
            return;
        }
        let (key_at, key_len) = self.key_place();
        let before = layout(at + len);
        let after = layout(key_at + key_len + tail_size::<S>(tail.len()));
        // SAFETY: `before` is the layout that the allocation was made with. Nothing between `realloc` and
        // the new word unwinds, so the word that is dropped is always that of the allocation.
        unsafe {
            let base = usable(realloc(self.base(), before, after.size()), after);
            write_tail::<S>(tail, base.add(key_at + key_len));
            let mark = self.0.addr().get() & !ADDRESS;
            self.0 = NonNull::new_unchecked(base.map_addr(|a| a | mark));
        }
    }

    /// Bytes of the allocation.
    pub fn size(&self) -> usize {
        let (at, len) = self.tail_place();
        layout(at + len).size()
    }
}

impl<S: Shape> Drop for Record<S> {
    fn drop(&mut self) {
        // SAFETY: the layout that the allocation was made with.
        unsafe { dealloc(self.base(), layout(self.size())) };
    }
}

impl<S: Shape> Clone for Record<S> {
    fn clone(&self) -> Self {
        // The hash counts by its upper byte only.
        let hash = (self.0.addr().get() as u64) & 0xff << 56;
        Self::new(hash, self.head(), self.key(), self.tail())
    }
}

/// A word that refers to a record which somebody else owns.
pub struct Shared<S: Shape>(*mut u8, PhantomData<S>);

impl<S: Shape> Clone for Shared<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Shape> Copy for Shared<S> {}

// SAFETY: only a word is read; whoever follows it vouches for the record.
unsafe impl<S: Shape> Send for Shared<S> {}
// SAFETY: as above.
unsafe impl<S: Shape> Sync for Shared<S> {}

impl<S: Shape> Shared<S> {
    /// Refers to nothing.
    pub const VOID: Self = Self(ptr::null_mut(), PhantomData);

    /// The record's key.
    ///
    /// # Safety
    /// The owner of the record lives and does not change it for as long as `'a`.
    #[inline]
    pub unsafe fn key<'a>(self) -> &'a [u8]
    where
        S: 'a,
    {
        // SAFETY: the same representation; the caller vouches for the owner, and no second owner results.
        unsafe {
            let record =
                std::mem::ManuallyDrop::new(Record::<S>(NonNull::new_unchecked(self.0), PhantomData));
            let (at, len) = record.key_place();
            std::slice::from_raw_parts(record.base().add(at), len)
        }
    }
}

/// A place in a table: empty, a record, or a small number that the table gives a meaning.
#[repr(transparent)]
pub struct Slot<S: Shape>(*mut u8, PhantomData<S>);

// SAFETY: as for `Record`.
unsafe impl<S: Shape> Send for Slot<S> {}
// SAFETY: as for `Record`.
unsafe impl<S: Shape> Sync for Slot<S> {}

const LINK: usize = 1 << ADDRESS_BITS;

impl<S: Shape> Slot<S> {
    pub const EMPTY: Self = Self(ptr::null_mut(), PhantomData);

    #[inline]
    pub fn mark(&self) -> Mark {
        (self.0.addr() >> ADDRESS_BITS) as Mark
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_null()
    }

    #[inline]
    fn is_record(&self) -> bool {
        self.mark() > 0xff
    }

    #[inline]
    pub fn record(&self) -> Option<&Record<S>> {
        // SAFETY: both are transparent over the same pointer, which is a record's since its tag is not 0.
        self.is_record().then(|| unsafe { &*ptr::from_ref(self).cast::<Record<S>>() })
    }

    #[inline]
    pub fn record_mut(&mut self) -> Option<&mut Record<S>> {
        // SAFETY: as in `record`; `self` is borrowed mutably.
        self.is_record().then(|| unsafe { &mut *ptr::from_mut(self).cast::<Record<S>>() })
    }

    /// Takes the record out, leaving the slot empty. A link stays.
    #[inline]
    pub fn take(&mut self) -> Option<Record<S>> {
        if !self.is_record() {
            return None;
        }
        let word = std::mem::replace(&mut self.0, ptr::null_mut());
        NonNull::new(word).map(|word| Record(word, PhantomData))
    }

    /// Begins to fetch the record, if there is one.
    #[inline]
    pub fn prefetch(&self) {
        prefetch(self.0.map_addr(|a| a & ADDRESS));
    }

    pub fn link(&self) -> Option<usize> {
        (self.mark() == 1).then(|| self.0.addr() & ADDRESS)
    }

    pub fn new_link(to: usize) -> Self {
        assert!(to <= ADDRESS, "a table's size");
        Self(ptr::without_provenance_mut(LINK | to), PhantomData)
    }
}

impl<S: Shape> From<Record<S>> for Slot<S> {
    #[inline]
    fn from(record: Record<S>) -> Self {
        Self(std::mem::ManuallyDrop::new(record).0.as_ptr(), PhantomData)
    }
}

impl<S: Shape> Drop for Slot<S> {
    #[inline]
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl<S: Shape> Clone for Slot<S> {
    fn clone(&self) -> Self {
        match self.record() {
            Some(record) => record.clone().into(),
            None => Self(self.0, PhantomData),
        }
    }
}

/// Allocates memory of this layout. An address of more than 48 bits cannot be used, and is treated like a failed
/// allocation.
#[inline]
fn usable(base: *mut u8, layout: Layout) -> *mut u8 {
    if base.is_null() || base.addr() & !ADDRESS != 0 {
        handle_alloc_error(layout);
    }
    base
}

/// Allocations are never empty, also where the key is.
fn layout(size: usize) -> Layout {
    Layout::from_size_align(size.max(1), 1).expect("keys and values are far below the address space")
}

/// Bytes that a value of this length takes.
///
/// # Panics
/// When it is too long: no request is.
fn tail_size<S: Shape>(len: usize) -> usize {
    match (S::TAIL, len) {
        (false, _) => 0,
        (true, 0..=254) => len + 1,
        (true, _) => {
            assert!(len <= LONGEST_TAIL, "values are below 4 GiB");
            len + 5
        }
    }
}

/// What fits the four bytes of a length; little under Miri and in tests, which cannot have as much.
const LONGEST_TAIL: usize = if cfg!(test) { 1 << 20 } else { u32::MAX as usize };

/// Writes a value whose [`tail_size`] was asked, and therefore never unwinds.
///
/// # Safety
/// `to` has room for [`tail_size`] bytes and does not overlap `tail`.
unsafe fn write_tail<S: Shape>(tail: &[u8], to: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        match (S::TAIL, tail.len()) {
            (false, _) => {}
            (true, n @ 0..=254) => {
                *to = n as u8;
                copy(tail, to.add(1));
            }
            (true, n) => {
                *to = 255;
                copy(&(n as u32).to_ne_bytes(), to.add(1));
                copy(tail, to.add(5));
            }
        }
    }
}

/// # Safety
/// `to` has room for the bytes and does not overlap them.
#[inline]
unsafe fn copy(from: &[u8], to: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pair;
    impl Shape for Pair {
        const HEAD: usize = 8;
        const TAIL: bool = true;
    }

    #[test]
    fn parts_of_every_length_come_back() {
        for key_len in [0, 1, 16, 254, 255, 256, 5000] {
            for tail_len in [0, 1, 254, 255, 70_000] {
                let (key, tail) = (vec![1; key_len], vec![2; tail_len]);
                let mut r = Record::<Pair>::new(u64::MAX, b"headhead", &key, &tail);
                assert_eq!((r.head(), r.key(), r.tail()), (&b"headhead"[..], &key[..], &tail[..]));
                r.head_mut()[0] = b'H';
                for again in [tail_len, 3, 300] {
                    r.set_tail(&vec![9; again]);
                    assert_eq!((r.head(), r.key()), (&b"Headhead"[..], &key[..]));
                    assert_eq!(r.tail(), vec![9; again]);
                }
                let copy = r.clone();
                drop(r);
                assert_eq!((copy.key(), copy.tail().len()), (&key[..], 300));
                assert_eq!(Slot::from(copy).mark(), mark(u64::MAX, key_len));
            }
        }
    }

    /// A value that cannot be written leaves the record as it was, and owned once.
    #[test]
    fn a_value_that_is_too_long_changes_nothing() {
        let mut r = Record::<Pair>::new(1, b"headhead", b"key", b"value");
        let long = vec![0; LONGEST_TAIL + 1];
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| r.set_tail(&long)));
        assert!(refused.is_err());
        assert_eq!((r.head(), r.key(), r.tail()), (&b"headhead"[..], &b"key"[..], &b"value"[..]));
        r.set_tail(b"another");
        assert_eq!(r.tail(), b"another");
    }

    #[test]
    fn a_slot_is_empty_a_record_or_a_link() {
        let mut slot = Slot::<Pair>::EMPTY;
        assert!(slot.is_empty() && slot.take().is_none() && slot.link().is_none());
        slot = Record::new(0, &[0; 8], b"key", b"").into();
        assert_eq!(slot.record().map(Record::key), Some(&b"key"[..]));
        assert!(slot.link().is_none());
        let shared = slot.record().unwrap().share();
        // SAFETY: the slot still owns the record.
        assert_eq!(unsafe { shared.key() }, b"key");
        slot = Slot::new_link(77);
        assert!(slot.record().is_none() && slot.take().is_none() && !slot.is_empty());
        assert_eq!(slot.clone().link(), Some(77));
    }
}
