//! The allocator, with a count of what is allocated: `used_memory`, cheap enough to be read before every write. Each
//! thread adds its part to the common count only now and then, so that it is off by up to 64 KiB a thread, or 1 KiB a
//! thread if `maxmemory` is set.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ffi::c_int;
use std::sync::atomic::{AtomicI64, Ordering};

use tikv_jemalloc_sys::{MALLOCX_ALIGN, MALLOCX_ZERO, mallocx, nallocx, rallocx, sallocx};
use tikv_jemallocator::Jemalloc;

use crate::base::size_class::size_class;

mod plain;

/// jemalloc, counting. To be declared as the global allocator by the binary.
#[derive(Debug)]
pub struct Counting;

/// Settings of jemalloc, read by it at start: huge pages save 15 to 20 % of a lookup, and freed
/// pages go back to the system in the background.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 34] = b"thp:always,background_thread:true\0";

/// Bytes allocated and not freed, as far as threads have told.
static USED: AtomicI64 = AtomicI64::new(0);

/// A thread tells its balance when it exceeds so many bytes.
static TELL_FROM: AtomicI64 = AtomicI64::new(TELL_SELDOM);
const TELL_SELDOM: i64 = 64 * 1024;
const TELL_OFTEN: i64 = 1024;

/// How exact the count is: within a few KiB, or within what costs next to nothing.
pub fn set_exact(exact: bool) {
    TELL_FROM.store(if exact { TELL_OFTEN } else { TELL_SELDOM }, Ordering::Relaxed);
}

thread_local! {
    /// Bytes that this thread has allocated, minus those that it has freed, since it last added them to the common
    /// count. Constant and without a destructor, so that it may be used inside the allocator.
    static BALANCE: Cell<i64> = const { Cell::new(0) };
}

/// What is really taken for `n` bytes.
#[inline]
fn taken(n: usize) -> i64 {
    size_class(n) as i64
}

#[inline]
fn count(bytes: i64) {
    // A thread that is being torn down has no counter any more; its last few bytes do not matter.
    let _ = BALANCE.try_with(|b| {
        let balance = b.get() + bytes;
        if balance.abs() > TELL_FROM.load(Ordering::Relaxed) {
            USED.fetch_add(balance, Ordering::Relaxed);
            b.set(0);
        } else {
            b.set(balance);
        }
    });
}

/// Starts jemalloc's background threads again in a process that forked: a child keeps only the
/// thread that called fork.
pub fn after_fork() {
    // Without them freed pages go back to the system a little later, that is all.
    let _ = tikv_jemalloc_ctl::background_thread::write(true);
}

/// Reads a number among jemalloc's settings and counters by its name, after setting it to `value` if there is
/// one.
pub fn control(name: &str, value: Option<u64>) -> Result<u64, String> {
    let name = [name.as_bytes(), b"\0"].concat();
    let failed = |e: tikv_jemalloc_ctl::Error| e.to_string();
    // The name decides the type: of the wrong size jemalloc reads and writes nothing, and says so.
    // SAFETY: these types have no invalid values but `bool`, whose one byte jemalloc fills with 0 or 1.
    unsafe {
        use tikv_jemalloc_ctl::raw::{read, write};
        if let Some(value) = value {
            write(&name, value)
                .or_else(|_| write(&name, value as u32))
                .or_else(|_| write(&name, value != 0))
                .map_err(failed)?;
        }
        read::<u64>(&name)
            .or_else(|_| read::<u32>(&name).map(u64::from))
            .or_else(|_| read::<bool>(&name).map(u64::from))
            .map_err(failed)
    }
}

/// As [`control`], for texts; one that is set lives on.
pub fn control_text(name: &str, value: Option<&[u8]>) -> Result<Vec<u8>, String> {
    let name = [name.as_bytes(), b"\0"].concat();
    let failed = |e: tikv_jemalloc_ctl::Error| e.to_string();
    // SAFETY: of another size than a pointer's jemalloc reads and writes nothing; a pointer that it gives is null or a
    // C string that lives as long as the process, and the one that it is given is never freed.
    unsafe {
        use tikv_jemalloc_ctl::raw::{read, write};
        if let Some(value) = value {
            let text = std::ffi::CString::new(value).map_err(|e| e.to_string())?;
            write(&name, text.into_raw().cast_const()).map_err(failed)?;
        }
        let text = read::<*const std::ffi::c_char>(&name).map_err(failed)?;
        Ok(if text.is_null() { Vec::new() } else { std::ffi::CStr::from_ptr(text).to_bytes().to_vec() })
    }
}

/// From now on allocations of 8 MiB and more go back to the system as soon as they are freed: a value that grows to a
/// great length would leave each of its former places behind for seconds.
pub fn return_large() -> Result<(), String> {
    // jemalloc keeps them in an arena of their own, behind those of threads, and makes it with the first of them.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(16 << 20)));
    let arena = control("opt.narenas", None)?;
    control(&format!("arena.{arena}.dirty_decay_ms"), Some(0)).map(|_| ())
}

/// Gives pages that are free in all arenas back to the system.
pub fn purge() -> Result<(), String> {
    // 4096 stands for all arenas (MALLCTL_ARENAS_ALL).
    let name = c"arena.4096.purge";
    // SAFETY: this one takes and gives nothing.
    let code = unsafe {
        tikv_jemalloc_sys::mallctl(
            name.as_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            0,
        )
    };
    if code == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(code).to_string()) }
}

/// What jemalloc tells of itself, for people; without the tables of each arena and size.
pub fn report() -> String {
    unsafe extern "C" fn append(out: *mut std::ffi::c_void, piece: *const std::ffi::c_char) {
        // SAFETY: jemalloc hands back the pointer that it was given below, and a C string.
        let (out, piece) = unsafe { (&mut *out.cast::<Vec<u8>>(), std::ffi::CStr::from_ptr(piece)) };
        out.extend_from_slice(piece.to_bytes());
    }
    let mut text: Vec<u8> = Vec::new();
    // SAFETY: the callback gets `text`, which outlives the call, and the options are a C string.
    unsafe {
        tikv_jemalloc_sys::malloc_stats_print(Some(append), (&raw mut text).cast(), c"abl".as_ptr());
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Bytes allocated now.
pub fn used() -> u64 {
    USED.load(Ordering::Relaxed).max(0) as u64
}

/// The flags of `mallocx` for what belongs in small pages; `None` for what belongs where jemalloc puts it.
#[inline(always)]
fn plain_flags(size: usize, align: usize) -> Option<c_int> {
    if plain::SIZES.contains(&size) { plain::flags().map(|flags| flags | MALLOCX_ALIGN(align)) } else { None }
}

/// What jemalloc is asked for. Its sizes are multiples of 8; what is to be aligned to more gets a multiple of that, which
/// is aligned to it.
#[inline(always)]
fn fitted(layout: Layout) -> Layout {
    if layout.align() <= 8 { layout } else { layout.pad_to_align() }
}

// SAFETY: every call goes to jemalloc, with the size and the alignment of the layout; counting touches only a
// thread-local cell and an atomic. What was allocated in an arena is freed there, whoever asks.
unsafe impl GlobalAlloc for Counting {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let layout = fitted(layout);
        count(taken(layout.size()));
        match plain_flags(layout.size(), layout.align()) {
            // SAFETY: the size is not 0.
            Some(flags) => unsafe { mallocx(layout.size(), flags).cast() },
            // SAFETY: the caller's contract.
            None => unsafe { Jemalloc.alloc(layout) },
        }
    }

    #[inline]
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        let layout = fitted(layout);
        // SAFETY: these only look at where `p` is, and at the numbers.
        debug_assert!(unsafe {
            sallocx(p.cast(), 0) == nallocx(layout.size(), MALLOCX_ALIGN(layout.align()))
        });
        count(-taken(layout.size()));
        // SAFETY: the caller's contract.
        unsafe { Jemalloc.dealloc(p, layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let layout = fitted(layout);
        count(taken(layout.size()));
        match plain_flags(layout.size(), layout.align()) {
            // SAFETY: the size is not 0.
            Some(flags) => unsafe { mallocx(layout.size(), flags | MALLOCX_ZERO).cast() },
            // SAFETY: the caller's contract.
            None => unsafe { Jemalloc.alloc_zeroed(layout) },
        }
    }

    #[inline]
    unsafe fn realloc(&self, p: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let layout = fitted(layout);
        let new_size = if layout.align() <= 8 { new_size } else { new_size.next_multiple_of(layout.align()) };
        count(taken(new_size) - taken(layout.size()));
        match plain_flags(new_size, layout.align()) {
            // SAFETY: `p` is of this allocator, and the new size is not 0.
            Some(flags) => unsafe { rallocx(p.cast(), new_size, flags).cast() },
            // SAFETY: the caller's contract.
            None => unsafe { Jemalloc.realloc(p, layout, new_size) },
        }
    }
}
