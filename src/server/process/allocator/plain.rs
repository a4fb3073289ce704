//! Arenas of jemalloc whose memory has pages of the usual size.
//!
//! Small objects lie densely, and huge pages make each look-up cheaper. Buffers of clients gain nothing by them, and the
//! first touch of a huge page may take milliseconds, because the kernel has to find or make two free megabytes in a
//! row; meanwhile all the clients of that thread wait. So buffers come from here.

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::ops::RangeInclusive;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tikv_jemalloc_ctl::raw;
use tikv_jemalloc_sys::{MALLOCX_ARENA, MALLOCX_TCACHE_NONE, extent_hooks_t};

/// The sizes of buffers, in bytes. Up to 32 KiB threads keep what was freed for themselves, which is faster. What is
/// larger than a huge page is the table of a large collection more often than a buffer.
pub(super) const SIZES: RangeInclusive<usize> = (32 << 10) + 1..=2 << 20;

/// Threads share so many arenas.
const ARENAS: usize = 8;

/// What allocates in an arena of this thread, as flags of `mallocx`; `None` where there is none.
pub(super) fn flags() -> Option<c_int> {
    thread_local! {
        /// Flags; 0 where there is no such arena, -1 before the first use.
        static MINE: Cell<c_int> = const { Cell::new(-1) };
    }
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let flags = MINE.try_with(|mine| {
        if mine.get() == -1 {
            // Where there are no such arenas, huge pages are what happens.
            let arena = arenas().map(|all| all[NEXT.fetch_add(1, Ordering::Relaxed) % ARENAS]);
            mine.set(arena.map_or(0, |arena| MALLOCX_ARENA(arena as usize) | MALLOCX_TCACHE_NONE));
        }
        mine.get()
    });
    flags.ok().filter(|flags| *flags != 0)
}

/// The numbers of the arenas, which are made when the first is wanted.
fn arenas() -> Option<[c_uint; ARENAS]> {
    static MADE: OnceLock<Option<[c_uint; ARENAS]>> = OnceLock::new();
    *MADE.get_or_init(|| {
        let hooks = Box::leak(Box::new(Hooks::new()?));
        let mut all = [0; ARENAS];
        for arena in &mut all {
            *arena = hooks.create()?;
        }
        Some(all)
    })
}

/// How arenas get their memory, as jemalloc does by default but for the size of pages. It is first, because jemalloc hands a
/// pointer to it to each of its functions.
#[repr(C)]
struct Hooks {
    table: extent_hooks_t,
    default: *mut extent_hooks_t,
}

impl Hooks {
    fn new() -> Option<Self> {
        // SAFETY: the value of this name is a pointer to hooks, which live as long as the process.
        let default = unsafe { raw::read::<*mut extent_hooks_t>(b"arena.0.extent_hooks\0") }.ok()?;
        // SAFETY: as above.
        let table = unsafe { *default };
        Some(Self { table: extent_hooks_t { alloc: Some(alloc), ..table }, default })
    }

    fn create(&mut self) -> Option<c_uint> {
        let mut arena: c_uint = 0;
        let mut len = size_of::<c_uint>();
        let mut hooks: *mut Self = self;
        // SAFETY: this name gives a number of that size and takes a pointer to hooks, which are leaked.
        let code = unsafe {
            tikv_jemalloc_sys::mallctl(
                c"arenas.create".as_ptr(),
                (&raw mut arena).cast(),
                &raw mut len,
                (&raw mut hooks).cast(),
                size_of::<*mut extent_hooks_t>(),
            )
        };
        (code == 0).then_some(arena)
    }
}

/// Gets memory from the system, in small pages.
unsafe extern "C" fn alloc(
    hooks: *mut extent_hooks_t,
    at: *mut c_void,
    size: usize,
    alignment: usize,
    zero: *mut bool,
    commit: *mut bool,
    arena: c_uint,
) -> *mut c_void {
    // SAFETY: jemalloc calls with the pointer that `Hooks::create` gave it, and `default` is valid for ever.
    let memory = unsafe {
        let default = (*hooks.cast::<Hooks>()).default;
        match (*default).alloc {
            Some(alloc) => alloc(default, at, size, alignment, zero, commit, arena),
            None => null_mut(),
        }
    };
    if !memory.is_null() {
        // Where the kernel knows no huge pages it refuses, and pages are small anyhow.
        // SAFETY: it was just mapped, and the advice changes no contents.
        let _ = unsafe { libc::madvise(memory, size, libc::MADV_NOHUGEPAGE) };
    }
    memory
}
