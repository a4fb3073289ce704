//! An entry: one allocation that holds a key, its expiry if it has one, and its value.
//!
//! ```text
//! 0        8             16 or 8                          ..
//! | header | expiry (8)? | object (8)? | long length (8)? | key | inline string |
//! ```
//!
//! A string of at most [`INLINE_MAX`] bytes stands behind the key; anything else is an [`Object`]
//! in front of it, whose type the header says. The layout is why this file is `unsafe`: one allocation a key and one cache
//! line for a short one measured 84 bytes resident and 50 to 60 ns a lookup against 100 and more
//! for a map of keys to values. Nothing outside this file touches the bytes.

#![expect(clippy::cast_ptr_alignment, reason = "entries are allocated with the alignment of their parts")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::base::size_class::size_class;
use crate::base::time::UnixMs;
use crate::value::{Hash, Kind, List, Set, SortedSet, Stream, Value, ValueMut, ValueRef};

/// Strings up to this many bytes are stored inline.
pub const INLINE_MAX: usize = 4096;

/// Keys from this length on carry it in a word of its own.
const LONG_KEY: usize = u16::MAX as usize;

const HAS_EXPIRE: u32 = 1 << 24;
const IS_OBJECT: u32 = 1 << 25;
/// The string was built by APPEND or SETRANGE: OBJECT ENCODING says `raw` whatever it holds.
const IS_RAW: u32 = 1 << 26;
/// The string was computed by INCRBYFLOAT: OBJECT ENCODING never says `int`.
const IS_TEXT: u32 = 1 << 27;
/// A bit for each snapshot that may run (see `snapshot`): equal to the parity of the snapshot's lane if that has
/// saved this entry.
const PARITIES_SHIFT: u32 = 28;
const PARITIES: u32 = 7 << PARITIES_SHIFT;
const ACCESS_MASK: u32 = (1 << 24) - 1;

// The parts in front of the key keep the alignment of the allocation, and the fields of the header hold
// what is put into them.
const ALIGN: usize = 8;
const _: () = assert!(size_of::<Header>() == 8 && align_of::<Header>() <= ALIGN);
const _: () = assert!(size_of::<UnixMs>() == 8 && align_of::<UnixMs>() <= ALIGN);
const _: () = assert!(size_of::<Object>() == 8 && align_of::<Object>() <= ALIGN);
const _: () = assert!(align_of::<u64>() <= ALIGN && size_of::<usize>() == 8);
const _: () = assert!(INLINE_MAX <= u16::MAX as usize);

#[repr(C)]
struct Header {
    key_len: u16,
    /// Of an inline string; of an object its [`Kind`].
    value_len: u16,
    /// 24 bits of access clock (seconds), then the flags above.
    word: u32,
}

/// A value in one word. Which field it is stands in the header.
union Object {
    string: ManuallyDrop<Arc<Vec<u8>>>,
    list: ManuallyDrop<Box<List>>,
    set: ManuallyDrop<Set>,
    hash: ManuallyDrop<Hash>,
    sorted_set: ManuallyDrop<SortedSet>,
    stream: ManuallyDrop<Box<Stream>>,
}

impl Object {
    fn new(value: Value) -> Self {
        match value {
            Value::String(v) => Self { string: ManuallyDrop::new(v) },
            Value::List(v) => Self { list: ManuallyDrop::new(v) },
            Value::Set(v) => Self { set: ManuallyDrop::new(v) },
            Value::Hash(v) => Self { hash: ManuallyDrop::new(v) },
            Value::SortedSet(v) => Self { sorted_set: ManuallyDrop::new(v) },
            Value::Stream(v) => Self { stream: ManuallyDrop::new(v) },
        }
    }

    /// # Safety
    /// It was made of a value of this kind.
    #[inline(always)]
    unsafe fn get(&self, kind: Kind) -> ValueRef<'_> {
        // SAFETY: the caller's promise.
        unsafe {
            match kind {
                Kind::String => ValueRef::String(&self.string),
                Kind::List => ValueRef::List(&self.list),
                Kind::Set => ValueRef::Set(&self.set),
                Kind::Hash => ValueRef::Hash(&self.hash),
                Kind::SortedSet => ValueRef::SortedSet(&self.sorted_set),
                Kind::Stream => ValueRef::Stream(&self.stream),
            }
        }
    }

    /// # Safety
    /// It was made of a value of this kind.
    #[inline(always)]
    unsafe fn get_mut(&mut self, kind: Kind) -> ValueMut<'_> {
        // SAFETY: the caller's promise.
        unsafe {
            match kind {
                Kind::String => ValueMut::String(&mut self.string),
                Kind::List => ValueMut::List(&mut self.list),
                Kind::Set => ValueMut::Set(&mut self.set),
                Kind::Hash => ValueMut::Hash(&mut self.hash),
                Kind::SortedSet => ValueMut::SortedSet(&mut self.sorted_set),
                Kind::Stream => ValueMut::Stream(&mut self.stream),
            }
        }
    }

    /// # Safety
    /// It was made of a value of this kind.
    unsafe fn into_value(self, kind: Kind) -> Value {
        // SAFETY: the caller's promise.
        unsafe {
            match kind {
                Kind::String => Value::String(ManuallyDrop::into_inner(self.string)),
                Kind::List => Value::List(ManuallyDrop::into_inner(self.list)),
                Kind::Set => Value::Set(ManuallyDrop::into_inner(self.set)),
                Kind::Hash => Value::Hash(ManuallyDrop::into_inner(self.hash)),
                Kind::SortedSet => Value::SortedSet(ManuallyDrop::into_inner(self.sorted_set)),
                Kind::Stream => Value::Stream(ManuallyDrop::into_inner(self.stream)),
            }
        }
    }
}

/// An owned entry.
#[derive(Debug)]
#[repr(transparent)]
pub struct Entry(NonNull<u8>);

// SAFETY: an entry owns its allocation; `Value` is `Send` and `Sync`.
unsafe impl Send for Entry where Value: Send {}
// SAFETY: as above.
unsafe impl Sync for Entry where Value: Sync {}

/// What a new entry holds.
#[derive(Debug)]
pub enum Body<'a> {
    /// A short string, kept within the entry.
    Inline(&'a [u8]),
    /// A value with an allocation of its own.
    Object(Value),
}

impl<'a> Body<'a> {
    /// The body for a string of any length.
    pub fn string(bytes: &'a [u8]) -> Self {
        if bytes.len() <= INLINE_MAX {
            Body::Inline(bytes)
        } else {
            Body::Object(Value::String(Arc::new(bytes.to_vec())))
        }
    }
}

/// Takes the whole size class, so that a value can change its length in place within it. What nearly fills a cache line
/// gets a whole one, or it would lie across two.
#[inline]
fn room(total: usize) -> usize {
    match size_class(total) {
        56 => 64,
        class => class,
    }
}

#[inline]
fn layout_of(total: usize) -> Layout {
    Layout::from_size_align(room(total), ALIGN).expect("an entry is far smaller than the address space")
}

impl Entry {
    /// `expire`: milliseconds since 1970.
    pub fn new(key: &[u8], body: Body<'_>, expire: Option<UnixMs>) -> Self {
        let mut word = 0;
        let mut front = size_of::<Header>();
        if expire.is_some() {
            word |= HAS_EXPIRE;
            front += 8;
        }
        let (inline, value_len): (&[u8], _) = match &body {
            Body::Inline(bytes) => {
                assert!(bytes.len() <= INLINE_MAX, "too long to be inline");
                (bytes, bytes.len() as u16)
            }
            Body::Object(value) => {
                word |= IS_OBJECT;
                front += size_of::<Object>();
                (&[], value.kind() as u16)
            }
        };
        if key.len() >= LONG_KEY {
            front += 8;
        }
        let total = front + key.len() + inline.len();
        let layout = layout_of(total);
        // SAFETY: the layout is not empty; every write below stays inside `total` bytes and is
        // aligned to 8 because each part in front of the key is a multiple of 8 long.
        unsafe {
            let Some(at) = NonNull::new(alloc(layout)) else { handle_alloc_error(layout) };
            let p = at.as_ptr();
            p.cast::<Header>().write(Header { key_len: key.len().min(LONG_KEY) as u16, value_len, word });
            let mut next = p.add(size_of::<Header>());
            if let Some(ms) = expire {
                next.cast::<UnixMs>().write(ms);
                next = next.add(8);
            }
            if let Body::Object(value) = body {
                next.cast::<Object>().write(Object::new(value));
                next = next.add(size_of::<Object>());
            }
            if key.len() >= LONG_KEY {
                next.cast::<u64>().write(key.len() as u64);
                next = next.add(8);
            }
            next.copy_from_nonoverlapping(key.as_ptr(), key.len());
            next.add(key.len()).copy_from_nonoverlapping(inline.as_ptr(), inline.len());
            Self(at)
        }
    }

    /// The entry, for reading.
    pub fn as_ref(&self) -> EntryRef<'_> {
        EntryRef(self.0, PhantomData)
    }

    pub(super) fn into_raw(self) -> *mut u8 {
        let p = self.0.as_ptr();
        std::mem::forget(self);
        p
    }

    /// # Safety
    /// `p` came from [`Entry::into_raw`] and nobody else owns it.
    pub(super) unsafe fn from_raw(p: *mut u8) -> Self {
        // SAFETY: into_raw never gives null.
        Self(unsafe { NonNull::new_unchecked(p) })
    }

    /// Overwrites an inline string in place. False, and nothing done, when the entry holds no
    /// inline string or the new one would not fit its size class.
    #[inline]
    pub fn overwrite_inline(&mut self, bytes: &[u8]) -> bool {
        let view = self.as_ref();
        if view.word() & IS_OBJECT != 0 || bytes.len() > INLINE_MAX {
            return false;
        }
        let front = view.value_offset();
        let old = view.header().value_len as usize;
        if old != bytes.len() && room(front + old) != room(front + bytes.len()) {
            return false;
        }
        // SAFETY: the allocation has room for `front + bytes.len()`; `&mut self` is the only access.
        unsafe {
            let p = self.0.as_ptr();
            (*p.cast::<Header>()).value_len = bytes.len() as u16;
            p.add(front).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        self.set_raw(false);
        true
    }

    /// The value for modification in place, if it is not an inline string.
    pub fn object_mut(&mut self) -> Option<ValueMut<'_>> {
        let (offset, kind) = self.as_ref().object_at()?;
        // SAFETY: an object of this kind is there, and `&mut self` is the only access.
        Some(unsafe { (*self.0.as_ptr().add(offset).cast::<Object>()).get_mut(kind) })
    }

    /// The object as a value, if there is one.
    ///
    /// # Safety
    /// It is moved out: only the shell may be freed afterwards.
    unsafe fn take_object(&mut self) -> Option<Value> {
        let (offset, kind) = self.as_ref().object_at()?;
        // SAFETY: an object of this kind is there; the caller does not use it again.
        Some(unsafe { self.0.as_ptr().add(offset).cast::<Object>().read().into_value(kind) })
    }

    /// Sets or clears the expiry. The entry moves to another allocation unless only the time changes.
    pub fn set_expire(&mut self, expire: Option<UnixMs>) {
        match (self.as_ref().expire(), expire) {
            (None, None) => {}
            (Some(_), Some(ms)) => {
                // SAFETY: HAS_EXPIRE says that the expiry stands behind the header.
                unsafe { self.0.as_ptr().add(size_of::<Header>()).cast::<UnixMs>().write(ms) };
            }
            _ => {
                let moved = self.rebuilt(expire);
                std::mem::replace(self, moved).release_shell();
            }
        }
    }

    /// Copies header facts and moves the value out; the shell must not drop the value again.
    fn rebuilt(&mut self, expire: Option<UnixMs>) -> Self {
        // SAFETY: the caller frees only the shell.
        let object = unsafe { self.take_object() };
        let view = self.as_ref();
        let word = view.word();
        let body = object.map_or(Body::Inline(view.inline()), Body::Object);
        let mut moved = Self::new(view.key(), body, expire);
        let keep = ACCESS_MASK | PARITIES | IS_RAW | IS_TEXT;
        moved.set_word((moved.as_ref().word() & !keep) | (word & keep));
        moved
    }

    /// Frees the allocation without dropping the value in it.
    fn release_shell(self) {
        let layout = self.as_ref().layout();
        // SAFETY: allocated with this layout; `self` is gone after this.
        unsafe { dealloc(self.into_raw(), layout) };
    }

    #[inline]
    fn set_word(&mut self, word: u32) {
        // SAFETY: every entry starts with a header.
        unsafe { (*self.0.as_ptr().cast::<Header>()).word = word };
    }

    /// Says whether OBJECT ENCODING shows a short string as `raw`: it was changed in place.
    pub fn set_raw(&mut self, raw: bool) {
        let word = self.as_ref().word();
        let new = (word & !(IS_RAW | IS_TEXT)) | if raw { IS_RAW } else { 0 };
        if new != word {
            self.set_word(new);
        }
    }

    /// Says that INCRBYFLOAT computed the string: OBJECT ENCODING never shows it as `int`.
    pub fn set_text(&mut self) {
        self.set_word(self.as_ref().word() | IS_TEXT);
    }

    /// Records an access at `clock` (seconds, 24 bits).
    #[inline]
    pub fn set_access(&mut self, clock: u32) {
        let word = self.as_ref().word();
        let new = (word & !ACCESS_MASK) | (clock & ACCESS_MASK);
        if new != word {
            self.set_word(new);
        }
    }

    pub(super) fn set_parities(&mut self, parities: u32) {
        let word = self.as_ref().word();
        self.set_word((word & !PARITIES) | (parities << PARITIES_SHIFT & PARITIES));
    }

    /// Takes the value out, for whoever wants to drop or move it.
    pub fn into_value(mut self) -> Value {
        // SAFETY: only the shell is freed below.
        let object = unsafe { self.take_object() };
        let value = object.unwrap_or_else(|| Value::String(Arc::new(self.as_ref().inline().to_vec())));
        self.release_shell();
        value
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let layout = self.as_ref().layout();
        // SAFETY: the allocation goes right after.
        drop(unsafe { self.take_object() });
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.0.as_ptr(), layout) };
    }
}

/// A borrowed entry.
#[derive(Clone, Copy, Debug)]
pub struct EntryRef<'a>(NonNull<u8>, PhantomData<&'a Entry>);

impl<'a> EntryRef<'a> {
    /// # Safety
    /// `p` is a live entry that nobody changes during `'a`.
    #[inline]
    pub(super) unsafe fn from_raw(p: *mut u8) -> Self {
        // SAFETY: entries are never null.
        Self(unsafe { NonNull::new_unchecked(p) }, PhantomData)
    }

    #[inline]
    fn header(self) -> &'a Header {
        // SAFETY: every entry starts with a header.
        unsafe { self.0.cast::<Header>().as_ref() }
    }

    #[inline]
    fn word(self) -> u32 {
        self.header().word
    }

    /// When the key's time comes, in milliseconds since 1970; `None`: it stays.
    #[inline]
    pub fn expire(self) -> Option<UnixMs> {
        if self.word() & HAS_EXPIRE == 0 {
            return None;
        }
        // SAFETY: HAS_EXPIRE says that the expiry stands behind the header.
        Some(unsafe { self.0.as_ptr().add(size_of::<Header>()).cast::<UnixMs>().read() })
    }

    /// Whether the entry is dead at `now`.
    #[inline]
    pub fn is_expired(self, now: UnixMs) -> bool {
        self.expire().is_some_and(|at| now > at)
    }

    /// Where the object stands, if there is one, and its kind.
    #[inline]
    fn object_at(self) -> Option<(usize, Kind)> {
        let word = self.word();
        if word & IS_OBJECT == 0 {
            return None;
        }
        let offset = size_of::<Header>() + if word & HAS_EXPIRE != 0 { 8 } else { 0 };
        Some((offset, Kind::numbered(self.header().value_len)))
    }

    #[inline]
    fn key_span(self) -> (usize, usize) {
        let word = self.word();
        let mut at = size_of::<Header>();
        if word & HAS_EXPIRE != 0 {
            at += 8;
        }
        if word & IS_OBJECT != 0 {
            at += size_of::<Object>();
        }
        let len = self.header().key_len as usize;
        if len < LONG_KEY {
            return (at, len);
        }
        // SAFETY: a long key's length stands in front of it.
        let len = unsafe { self.0.as_ptr().add(at).cast::<u64>().read() };
        (at + 8, len as usize)
    }

    /// The name of the key.
    #[inline]
    pub fn key(self) -> &'a [u8] {
        let (at, len) = self.key_span();
        // SAFETY: the key occupies this span.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(at), len) }
    }

    #[inline]
    fn value_offset(self) -> usize {
        let (at, len) = self.key_span();
        at + len
    }

    #[inline]
    fn inline(self) -> &'a [u8] {
        // SAFETY: an inline string stands behind the key.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(self.value_offset()), self.inline_len()) }
    }

    #[inline]
    fn inline_len(self) -> usize {
        if self.word() & IS_OBJECT == 0 { self.header().value_len.into() } else { 0 }
    }

    fn layout(self) -> Layout {
        layout_of(self.value_offset() + self.inline_len())
    }

    /// The time of the first field that goes, of a hash that has such fields.
    #[inline]
    pub fn next_field_time(self) -> Option<UnixMs> {
        if let Some(ValueRef::Hash(hash)) = self.object() { hash.next_time() } else { None }
    }

    /// The value, if it is not an inline string.
    #[inline]
    pub fn object(self) -> Option<ValueRef<'a>> {
        let (offset, kind) = self.object_at()?;
        // SAFETY: an object of this kind is there.
        Some(unsafe { (*self.0.as_ptr().add(offset).cast::<Object>()).get(kind) })
    }

    /// The string, if it is not an inline one, to be shared.
    pub fn shared_string(self) -> Option<&'a Arc<Vec<u8>>> {
        let (offset, kind) = self.object_at()?;
        // SAFETY: an object of this kind is there.
        (kind == Kind::String).then(|| unsafe { &*(*self.0.as_ptr().add(offset).cast::<Object>()).string })
    }

    /// The value, whichever way it is kept.
    #[inline]
    pub fn value(self) -> ValueRef<'a> {
        self.object().unwrap_or_else(|| ValueRef::String(self.inline()))
    }

    /// The type of the value.
    #[inline]
    pub fn kind(self) -> Kind {
        self.object_at().map_or(Kind::String, |(_, kind)| kind)
    }

    /// Whether the string was computed by INCRBYFLOAT.
    pub fn is_text(self) -> bool {
        self.word() & IS_TEXT != 0
    }

    /// Whether the string was built by APPEND or SETRANGE.
    pub fn is_raw(self) -> bool {
        self.word() & IS_RAW != 0
    }

    /// The access clock, 24 bits.
    pub fn access(self) -> u32 {
        self.word() & ACCESS_MASK
    }

    pub(super) fn parities(self) -> u32 {
        (self.word() & PARITIES) >> PARITIES_SHIFT
    }

    /// Bytes of the entry's own allocation; an object's body is not counted.
    pub fn shell_bytes(self) -> usize {
        self.layout().size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_string_takes_one_cache_line() {
        let e = Entry::new(&[b'k'; 16], Body::Inline(&[b'v'; 32]), None);
        assert_eq!(e.as_ref().shell_bytes(), 64);
    }

    #[test]
    fn parts_survive_every_change_of_layout() {
        for key_len in [0, 1, 16, 300, LONG_KEY - 1, LONG_KEY, LONG_KEY + 9] {
            let key = vec![b'k'; key_len];
            let mut e = Entry::new(&key, Body::string(b"hello"), None);
            e.set_access(77);
            e.set_expire(Some(123));
            assert_eq!((e.as_ref().expire(), e.as_ref().access()), (Some(123), 77));
            e.set_expire(Some(124));
            assert_eq!((e.as_ref().key(), e.as_ref().expire()), (&key[..], Some(124)));
            e.set_expire(None);
            assert!(matches!(e.as_ref().value(), ValueRef::String(b"hello")));
        }
        let mut e = Entry::new(b"k", Body::string(b"hello"), None);
        assert!(e.overwrite_inline(b"hellos") && !e.overwrite_inline(&[b'x'; 200]));
        assert!(matches!(e.as_ref().value(), ValueRef::String(b"hellos")));
    }

    #[test]
    fn an_object_is_of_the_kind_that_was_put_in() {
        let values = [
            Value::String(Arc::default()),
            Value::List(Box::default()),
            Value::Set(Set::default()),
            Value::Hash(Hash::default()),
            Value::SortedSet(SortedSet::default()),
            Value::Stream(Box::default()),
        ];
        for value in values {
            let kind = value.kind();
            let mut e = Entry::new(b"k", Body::Object(value), None);
            e.set_expire(Some(5));
            assert_eq!((e.as_ref().kind(), e.as_ref().value().kind()), (kind, kind));
            assert_eq!(e.as_ref().shared_string().is_some(), kind == Kind::String);
            let written = match e.object_mut() {
                Some(ValueMut::String(_)) => Kind::String,
                Some(ValueMut::List(_)) => Kind::List,
                Some(ValueMut::Set(_)) => Kind::Set,
                Some(ValueMut::Hash(_)) => Kind::Hash,
                Some(ValueMut::SortedSet(_)) => Kind::SortedSet,
                Some(ValueMut::Stream(_)) => Kind::Stream,
                None => panic!("an object"),
            };
            assert_eq!((written, e.into_value().kind()), (kind, kind));
        }
    }

    #[test]
    fn objects_are_moved_not_copied() {
        let big = vec![b'x'; INLINE_MAX + 1];
        let mut e = Entry::new(b"k", Body::string(&big), Some(5));
        e.set_expire(None);
        assert!(!e.overwrite_inline(b"short"));
        let Some(ValueMut::String(s)) = e.object_mut() else { panic!("an object") };
        Arc::make_mut(s).push(b'y');
        let Value::String(s) = e.into_value() else { panic!("a string") };
        assert_eq!((s.len(), Arc::strong_count(&s)), (INLINE_MAX + 2, 1));
    }
}
