//! The form of a hash in one word: small hashes are many, and each has this word in its entry.
//!
//! A listpack is one pointer by itself, and so is a box; the lowest bits, which are 0 in a pointer, say which it is.
//! With a tag in a word of its own a hash of ten short fields under a key of nine to sixteen bytes took 16 bytes more.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use super::Field;
use crate::encoding::Dense;
use crate::value::table::Table;
use crate::value::timed::Timed;

/// What a hash is, owned.
pub(super) enum Owned {
    Packed(Dense),
    Table(Box<Table<Field>>),
    Timed(Box<Timed>),
}

/// What a hash is, for reading.
pub(super) enum View<'a> {
    Packed(&'a Dense),
    Table(&'a Table<Field>),
    Timed(&'a Timed),
}

/// What a hash is, for modification in place.
pub(super) enum ViewMut<'a> {
    Packed(&'a mut Dense),
    Table(&'a mut Table<Field>),
    Timed(&'a mut Timed),
}

/// One of the three: a pointer with a tag.
#[repr(transparent)]
pub(super) struct Form(NonNull<u8>, PhantomData<Owned>);

const PACKED: usize = 0;
const TABLE: usize = 1;
const TIMED: usize = 2;
const TAGS: usize = 3;

const _: () = assert!(size_of::<Dense>() == size_of::<NonNull<u8>>());
const _: () = assert!(Dense::ALIGN > TAGS && align_of::<Table<Field>>() > TAGS && align_of::<Timed>() > TAGS);

impl From<Owned> for Form {
    fn from(owned: Owned) -> Self {
        let boxed = |p: *mut u8, tag| NonNull::new(p.map_addr(|at| at | tag)).expect("a box is not null");
        let word = match owned {
            // SAFETY: the one is a transparent wrapper of the other; who drops the form drops the listpack.
            Owned::Packed(lp) => unsafe {
                std::mem::transmute::<ManuallyDrop<Dense>, NonNull<u8>>(ManuallyDrop::new(lp))
            },
            Owned::Table(table) => boxed(Box::into_raw(table).cast(), TABLE),
            Owned::Timed(timed) => boxed(Box::into_raw(timed).cast(), TIMED),
        };
        Self(word, PhantomData)
    }
}

impl Form {
    #[inline(always)]
    fn tag(&self) -> usize {
        self.0.addr().get() & TAGS
    }

    /// What the pointer of a box points to.
    #[inline(always)]
    fn boxed<T>(&self) -> *mut T {
        self.0.as_ptr().map_addr(|at| at & !TAGS).cast()
    }

    #[inline(always)]
    pub fn view(&self) -> View<'_> {
        // SAFETY: the tag says what the word is; `From` put it there, and a tag of 0 leaves a listpack as it is.
        unsafe {
            match self.tag() {
                PACKED => View::Packed(&*(&raw const self.0).cast()),
                TABLE => View::Table(&*self.boxed()),
                _ => View::Timed(&*self.boxed()),
            }
        }
    }

    #[inline(always)]
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        // SAFETY: as in `view`. A listpack that moves writes its new pointer here, also without a tag.
        unsafe {
            match self.tag() {
                PACKED => ViewMut::Packed(&mut *(&raw mut self.0).cast()),
                TABLE => ViewMut::Table(&mut *self.boxed()),
                _ => ViewMut::Timed(&mut *self.boxed()),
            }
        }
    }
}

impl Drop for Form {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the tag says what is owned, and nobody uses the word afterwards.
        unsafe {
            match self.tag() {
                PACKED => (&raw mut self.0).cast::<Dense>().drop_in_place(),
                TABLE => drop(Box::from_raw(self.boxed::<Table<Field>>())),
                _ => drop(Box::from_raw(self.boxed::<Timed>())),
            }
        }
    }
}

// SAFETY: it owns one of these.
unsafe impl Send for Form where Owned: Send {}
// SAFETY: as above.
unsafe impl Sync for Form where Owned: Sync {}

impl Clone for Form {
    fn clone(&self) -> Self {
        match self.view() {
            View::Packed(lp) => Owned::Packed(lp.clone()),
            View::Table(table) => Owned::Table(Box::new(table.clone())),
            View::Timed(timed) => Owned::Timed(Box::new(timed.clone())),
        }
        .into()
    }
}

impl Default for Form {
    fn default() -> Self {
        Owned::Packed(Dense::new()).into()
    }
}

#[cfg(test)]
mod tests {
    use crate::value::{Hash, Limits};

    #[test]
    fn a_hash_is_one_word_and_becomes_every_form() {
        assert_eq!(size_of::<Hash>(), 8);
        let limits = Limits { hash_max_listpack_entries: 4, ..Limits::default() };
        let text = |hash: &Hash| format!("{} {:?}", hash.encoding_name(), hash.get(b"2").map(|v| v.to_vec()));
        let mut copies = Vec::new();
        let mut hash = Hash::new();
        for n in 1..=5 {
            hash.set(n.to_string().as_bytes(), &[b'x'; 40], &limits);
            copies.push(hash.clone());
        }
        let mut timed = [copies[1].clone(), hash.clone()];
        timed.iter_mut().for_each(|hash| hash.set_time(b"2", Some(7), &limits));
        drop(hash);
        let x = format!("{:?}", Some([b'x'; 40].to_vec()));
        assert_eq!(text(&copies[0]), "listpack None");
        assert_eq!(text(&copies[3]), format!("listpack {x}"));
        assert_eq!(text(&copies[4]), format!("hashtable {x}"));
        assert_eq!(timed.each_ref().map(text), [format!("listpackex {x}"), format!("hashtable {x}")]);
        assert_eq!(timed[1].clone().next_time(), Some(7));
    }
}
