//! The encoding of a collection in one word, because there may be very many small collections and each has this word
//! in its entry.
//!
//! A listpack is one pointer, and so is a box with anything larger. The lowest bits of a pointer are 0; here they are
//! a tag that says which of them it is. With a tag in a word of its own a hash of ten short fields under a key of
//! nine to sixteen bytes took 16 bytes more, and a set behind a box as well.

/// Defines `Form`, which owns a listpack or one of the types that are named, and `Owned`, `View` and `ViewMut`, which
/// show it: `form! { 1: Table(Table<Field>), 2: Timed(Timed) }`. The numbers are the tags, from 1 to 7.
macro_rules! form {
    ($($tag:literal: $name:ident($type:ty)),+) => {
        /// What it is, owned.
        enum Owned {
            Packed($crate::encoding::Dense),
            $($name(Box<$type>),)+
        }

        /// What it is, for reading.
        enum View<'a> {
            Packed(&'a $crate::encoding::Dense),
            $($name(&'a $type),)+
        }

        /// What it is, for modification in place.
        enum ViewMut<'a> {
            Packed(&'a mut $crate::encoding::Dense),
            $($name(&'a mut $type),)+
        }

        /// A pointer with its tag, which is 0 for a listpack.
        #[repr(transparent)]
        struct Form(std::ptr::NonNull<u8>, std::marker::PhantomData<Owned>);

        const _: () = {
            use std::mem::{ManuallyDrop, transmute};
            use std::ptr::NonNull;

            use $crate::encoding::Dense;

            const TAGS: usize = 7;
            const _: () = assert!(size_of::<Dense>() == size_of::<NonNull<u8>>() && Dense::ALIGN > TAGS);
            $(const _: () = assert!($tag > 0 && $tag <= TAGS && align_of::<$type>() > TAGS);)+

            impl From<Owned> for Form {
                fn from(owned: Owned) -> Self {
                    let tagged = |p: *mut u8, tag: usize| {
                        NonNull::new(p.map_addr(|at| at | tag)).expect("a box is not null")
                    };
                    let word = match owned {
                        // SAFETY: the one is a transparent wrapper of the other, and who drops the form drops the
                        // listpack.
                        Owned::Packed(lp) => unsafe {
                            transmute::<ManuallyDrop<Dense>, NonNull<u8>>(ManuallyDrop::new(lp))
                        },
                        $(Owned::$name(value) => tagged(Box::into_raw(value).cast(), $tag),)+
                    };
                    Self(word, std::marker::PhantomData)
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
                fn view(&self) -> View<'_> {
                    // SAFETY: the tag says what the word is, `From` put it there, and a tag of 0 leaves a listpack as
                    // it is. There are no other tags.
                    unsafe {
                        match self.tag() {
                            0 => View::Packed(&*(&raw const self.0).cast()),
                            $($tag => View::$name(&*self.boxed()),)+
                            _ => std::hint::unreachable_unchecked(),
                        }
                    }
                }

                #[inline(always)]
                fn view_mut(&mut self) -> ViewMut<'_> {
                    // SAFETY: as in `view`. A listpack that moves writes its new pointer here, also without a tag.
                    unsafe {
                        match self.tag() {
                            0 => ViewMut::Packed(&mut *(&raw mut self.0).cast()),
                            $($tag => ViewMut::$name(&mut *self.boxed()),)+
                            _ => std::hint::unreachable_unchecked(),
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
                            0 => (&raw mut self.0).cast::<Dense>().drop_in_place(),
                            $($tag => drop(Box::from_raw(self.boxed::<$type>())),)+
                            _ => std::hint::unreachable_unchecked(),
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
                        $(View::$name(value) => Owned::$name(Box::new(value.clone())),)+
                    }
                    .into()
                }
            }
        };
    };
}
pub(super) use form;

#[cfg(test)]
mod tests {
    use crate::value::{Hash, Limits, Set, SortedSet};

    /// Under Miri this is what shows that tags and pointers are kept apart.
    #[test]
    fn a_collection_is_one_word_and_becomes_every_form() {
        assert_eq!((size_of::<Hash>(), size_of::<Set>(), size_of::<SortedSet>()), (8, 8, 8));
        let limits = Limits {
            hash_max_listpack_entries: 4,
            set_max_listpack_entries: 4,
            zset_max_listpack_entries: 4,
            ..Limits::default()
        };
        let (mut hash, mut set, mut zset) = (Hash::new(), Set::new(), SortedSet::new());
        let mut copies = Vec::new();
        let members: [&[u8]; 6] = [b"1", b"2", b"three", b"four", b"5", b"6"];
        for member in members {
            hash.set(member, &[b'x'; 40], &limits);
            set.add(member, &limits);
            zset.add(member, 1.5, &limits);
            copies.push((hash.clone(), set.clone(), zset.clone()));
        }
        let mut timed = [copies[1].0.clone(), hash.clone()];
        timed.iter_mut().for_each(|hash| hash.set_time(b"2", Some(7), &limits));
        drop((hash, set, zset));
        let names = copies.iter().map(|(h, s, z)| (h.encoding_name(), s.encoding_name(), z.encoding_name()));
        let (packed, full) = (("listpack", "listpack", "listpack"), ("hashtable", "hashtable", "skiplist"));
        let ints = ("listpack", "intset", "listpack");
        assert_eq!(names.collect::<Vec<_>>(), [ints, ints, packed, packed, full, full]);
        for (n, (hash, set, zset)) in copies.iter().enumerate() {
            assert_eq!((hash.len(), set.len(), zset.len()), (n + 1, n + 1, n + 1));
            let last = members[n];
            assert_eq!(hash.get(last).map(|v| v.len()), Some(40));
            assert!(set.contains(last) && zset.score(last) == Some(1.5));
        }
        assert_eq!(timed.each_ref().map(Hash::encoding_name), ["listpackex", "hashtable"]);
        assert_eq!(timed[1].clone().next_time(), Some(7));
    }
}
