//! Bytes an element and nanoseconds an operation of the value types: `cargo bench --bench values [NAME]`.
//!
//! Bytes are what the allocator hands out, its rounding included. Elements are drawn in random
//! order, so at a million elements every operation misses the cache as it does in a server.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use keystead::base::rng::Rng;
use keystead::value::{Hash, Limits, List, Set, SortedSet, Stream, StreamId};
use tikv_jemallocator::Jemalloc;

/// The server's allocator, which counts what it has handed out. One thread, so a plain sum will do.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to jemalloc as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.store(allocated() + size_class(layout.size()), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { Jemalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        ALLOCATED.store(allocated() - size_class(layout.size()), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { Jemalloc.dealloc(p, layout) };
    }

    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.store(allocated() + size_class(size) - size_class(layout.size()), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { Jemalloc.realloc(p, layout, size) }
    }
}

/// What jemalloc rounds `n` bytes up to: 8, multiples of 16 to 128, then four sizes a doubling.
fn size_class(n: usize) -> usize {
    if n <= 8 { 8 } else { n.next_multiple_of((n.next_power_of_two() / 8).max(16)) }
}

fn allocated() -> usize {
    ALLOCATED.load(Relaxed)
}

const N: u64 = 1_000_000;

/// Runs `f` for `n` operations and prints nanoseconds each.
fn time(what: &str, n: u64, f: impl FnOnce()) {
    let start = cpu_ns();
    f();
    println!("{what:<44} {:>8.1} ns", (cpu_ns() - start) as f64 / n as f64);
}

/// Nanoseconds that this thread has been running, so that other work on the machine counts little.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("the first field is the time on a processor")
}

/// Prints the bytes that each of `n` elements has added since `before`.
fn bytes(what: &str, n: u64, before: usize) {
    println!("{what:<44} {:>8.1} bytes", (allocated() - before) as f64 / n as f64);
}

fn member(n: u64, out: &mut [u8; 16]) {
    let mut digits = n;
    for b in out[4..].iter_mut().rev() {
        *b = b'0' + (digits % 10) as u8;
        digits /= 10;
    }
    out[..4].copy_from_slice(b"mem:");
}

/// Calls `f` with `n` members out of the first `N`, in random order.
fn random_members(seed: u64, n: u64, mut f: impl FnMut(&[u8], u64)) {
    let mut rng = Rng::new(seed);
    let mut m = [0; 16];
    for _ in 0..n {
        let i = rng.below(N);
        member(i, &mut m);
        f(&m, rng.next_u64() >> 40);
    }
}

fn all_members(mut f: impl FnMut(&[u8], u64)) {
    let mut order: Vec<u32> = (0..N as u32).collect();
    let mut rng = Rng::new(1);
    for i in (1..order.len()).rev() {
        order.swap(i, rng.below(i as u64 + 1) as usize);
    }
    let mut m = [0; 16];
    for i in order {
        member(u64::from(i), &mut m);
        f(&m, rng.next_u64() >> 40);
    }
}

fn sets(limits: &Limits) {
    let (mut s, mut rng) = (Set::new(), Rng::new(1));
    let before = allocated();
    time("set: add, 1 M of 16 bytes", N, || all_members(|m, _| assert!(s.add(m, limits))));
    bytes("set: 1 M of 16 bytes", N, before);
    time("set: contains", N, || random_members(2, N, |m, _| assert!(s.contains(m))));
    time("set: add what is there", N, || random_members(3, N, |m, _| assert!(!s.add(m, limits))));
    time("set: random", N, || (0..N).for_each(|_| _ = black_box(s.random(&mut rng))));
    time("set: iterate", N, || {
        assert_eq!(black_box(s.iter().map(|m| m.len()).sum::<usize>()), 16 * N as usize);
    });
    time("set: scan by 10", N, || {
        let (mut cursor, mut seen) = (0, 0);
        loop {
            cursor = s.scan(cursor, 10, |_| seen += 1);
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(seen, N);
    });
    time("set: pop", N, || while s.pop_with(&mut rng, |m| _ = black_box(m)).is_some() {});
    let (mut s, mut times) = (Set::new(), Vec::with_capacity(N as usize));
    all_members(|m, _| {
        let start = Instant::now();
        s.add(m, limits);
        times.push(start.elapsed().as_nanos());
    });
    times.sort_unstable();
    println!("{:<44} {:>8} ns", "set: the slowest 1 in 10,000 adds", times[N as usize - 100]);
    let before = allocated();
    let small: Vec<Set> = (0..1000)
        .map(|k| {
            let mut s = Set::new();
            (0..10).for_each(|i| _ = black_box(s.add(format!("m{k}{i}").as_bytes(), limits)));
            s
        })
        .collect();
    bytes("set: listpack of 10 x 5 bytes, each set", 1000, before);
    drop(small);
}

fn hashes(limits: &Limits) {
    let mut h = Hash::new();
    let before = allocated();
    time("hash: set, 1 M of 16 + 10 bytes", N, || {
        all_members(|m, _| assert!(h.set(m, b"0123456789", limits)));
    });
    bytes("hash: 1 M of 16 + 10 bytes", N, before);
    time("hash: get", N, || random_members(2, N, |m, _| assert!(h.get(m).is_some())));
    time("hash: set what is there", N, || {
        random_members(3, N, |m, _| assert!(!h.set(m, b"abcdefghij", limits)));
    });
    time("hash: remove", N, || all_members(|m, _| assert!(h.remove(m))));
    let before = allocated();
    let mut small: Vec<Box<Hash>> = Vec::new();
    time("hash: listpack, set of 10 new fields, each", N, || {
        for _ in 0..N / 10 {
            let mut h = Box::<Hash>::default();
            for f in 0..10u8 {
                h.set(&[b'f', b'i', b'e', b'l', b'd', b'0' + f], b"0123456789", limits);
            }
            small.push(h);
        }
    });
    small.shrink_to_fit();
    bytes("hash: 10 fields of 6 + 10 bytes, each hash", N / 10, before);
    let h = &mut small[0];
    time("hash: listpack of 10, set what is there", N, || {
        (0..N).for_each(|i| {
            assert!(!h.set(&[b'f', b'i', b'e', b'l', b'd', b'0' + (i % 10) as u8], b"abcdefghij", limits));
        });
    });
    time("hash: listpack of 10, get", N, || {
        (0..N).for_each(|i| assert!(h.get(&[b'f', b'i', b'e', b'l', b'd', b'0' + (i % 10) as u8]).is_some()));
    });
}

fn sorted_sets(limits: &Limits) {
    let mut z = SortedSet::new();
    let before = allocated();
    time("zset: add, 1 M of 16 bytes", N, || all_members(|m, s| _ = black_box(z.add(m, s as f64, limits))));
    bytes("zset: 1 M of 16 bytes", N, before);
    time("zset: score", N, || random_members(2, N, |m, _| assert!(z.score(m).is_some())));
    time("zset: rank", N, || random_members(3, N, |m, _| assert!(z.rank(m).is_some())));
    time("zset: add, another score", N, || {
        random_members(4, N, |m, s| _ = black_box(z.add(m, s as f64, limits)));
    });
    bytes("zset: after a million moves", N, before);
    let mut rng = Rng::new(5);
    time("zset: range of 100 by rank, each member", N, || {
        for _ in 0..N / 100 {
            let at = rng.below(N - 100) as usize;
            assert_eq!(z.range(at..at + 100).map(|(m, _)| m.len()).sum::<usize>(), 1600);
        }
    });
    time("zset: pop the lowest", N, || while z.pop_first_with(|m, _| _ = black_box(m)).is_some() {});
    let mut z = SortedSet::new();
    time("zset: listpack of 100, add what is there", N / 10, || {
        let mut m = [0; 16];
        for i in 0..N / 10 {
            member(i % 100, &mut m);
            z.add(&m, (i % 37) as f64, limits);
        }
    });
}

fn lists(limits: &Limits) {
    let mut l = List::new();
    let before = allocated();
    let mut m = [0; 16];
    time("list: push back, 1 M of 10 bytes", N, || {
        for i in 0..N {
            member(i, &mut m);
            m[6] = b'x';
            l.push_back(&m[6..], limits);
        }
    });
    bytes("list: 1 M of 10 bytes", N, before);
    let mut rng = Rng::new(1);
    time("list: get", N / 100, || {
        (0..N / 100).for_each(|_| _ = black_box(l.get_with(rng.below(N) as usize, |i| i.len())));
    });
    for n in [100, 600] {
        time(&format!("list: range of {n} at the head, each element"), N, || {
            (0..N / n).for_each(|_| {
                let mut bytes = 0;
                l.for_each_in(0..n as usize, |i| bytes += i.len());
                assert_eq!(bytes, 10 * n as usize);
            });
        });
    }
    time("list: pop front", N, || while l.pop_front_with(|i| _ = black_box(i)).is_some() {});
    time("list: push front, 1 M of 3 bytes", N, || (0..N).for_each(|_| l.push_front(b"xxx", limits)));
    time("list: pop back", N, || while l.pop_back_with(|i| _ = black_box(i)).is_some() {});
    time("list: push back and pop front, 3 waiting", N, || {
        (0..3).for_each(|_| l.push_back(b"job", limits));
        for _ in 0..N {
            l.push_back(b"job", limits);
            l.pop_front_with(|i| _ = black_box(i));
        }
    });
}

fn streams(limits: &Limits) {
    let mut s = Stream::new();
    let before = allocated();
    time("stream: append 2 fields", N, || {
        let mut m = [0; 16];
        for i in 1..=N {
            member(i, &mut m);
            s.append(StreamId::new(i, 0), &[&b"name"[..], &m, b"age", b"33"], limits);
        }
    });
    bytes("stream: 2 fields of 4 + 16, 3 + 2 bytes", N, before);
    time("stream: iterate", N, || {
        assert_eq!(s.iter().map(|e| e.fields.count()).sum::<usize>(), 2 * N as usize);
    });
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let limits = Limits { hash_seed: 7, ..Limits::default() };
    let all: [(&str, fn(&Limits)); 5] =
        [("set", sets), ("hash", hashes), ("zset", sorted_sets), ("list", lists), ("stream", streams)];
    for (name, run) in all {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            run(&limits);
        }
    }
}
