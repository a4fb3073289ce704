//! How texts are compared by a locale (`locale-collate`).

use std::cmp::Ordering;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::Arc;

unsafe extern "C" {
    // POSIX.1-2008; glibc, musl and macOS have them.
    fn newlocale(mask: c_int, name: *const c_char, base: *mut c_void) -> *mut c_void;
    fn freelocale(locale: *mut c_void);
    fn strcoll_l(a: *const c_char, b: *const c_char, locale: *mut c_void) -> c_int;
}

/// An order of texts. The default is that of their bytes.
#[derive(Clone, Debug, Default)]
pub struct Collation {
    name: String,
    /// `None` for the order of bytes.
    locale: Option<Arc<Locale>>,
}

/// An object of the C library, freed with its last user.
#[derive(Debug)]
struct Locale(*mut c_void);

// SAFETY: a locale object is never changed once it is made; POSIX lets any thread use it.
unsafe impl Send for Locale {}
// SAFETY: as above.
unsafe impl Sync for Locale {}

impl Drop for Locale {
    fn drop(&mut self) {
        // SAFETY: made by newlocale; nobody else has it.
        unsafe { freelocale(self.0) };
    }
}

impl PartialEq for Collation {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Collation {}

impl Collation {
    /// The order of a locale; "" is that of the environment. `None` if the system does not have it.
    pub fn of(name: &str) -> Option<Self> {
        let text = CString::new(name).ok()?;
        // SAFETY: the name is a C string; a null base makes a new object.
        let locale = unsafe { newlocale(libc::LC_COLLATE_MASK, text.as_ptr(), std::ptr::null_mut()) };
        if locale.is_null() {
            return None;
        }
        Some(Self { name: name.to_owned(), locale: Some(Arc::new(Locale(locale))) })
    }

    /// Compares two texts; as for C they end at a zero byte.
    pub fn compare(&self, a: &[u8], b: &[u8]) -> Ordering {
        let Some(locale) = &self.locale else { return a.cmp(b) };
        let (a, b) = (c_string(a), c_string(b));
        // SAFETY: both are C strings, and the locale lives.
        unsafe { strcoll_l(a.as_ptr(), b.as_ptr(), locale.0) }.cmp(&0)
    }
}

fn c_string(text: &[u8]) -> CString {
    let with_end = [text, &[0]].concat();
    CStr::from_bytes_until_nul(&with_end).map(CStr::to_owned).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locale_c_compares_bytes() {
        let c = Collation::of("C").unwrap();
        for (a, b) in [("a", "b"), ("B", "a"), ("", "a"), ("a", "ab"), ("a\0z", "a\0b")] {
            let want = if a.contains('\0') { Ordering::Equal } else { a.cmp(b) };
            assert_eq!(c.compare(a.as_bytes(), b.as_bytes()), want, "{a:?} {b:?}");
        }
        assert!(Collation::of("no_such_LOCALE").is_none());
        assert_eq!(Collation::default().compare(b"a\0z", b"a\0b"), Ordering::Greater);
    }
}
