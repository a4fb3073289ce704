//! A TCP proxy that cuts, stalls and delays the links through it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

#[derive(Default)]
struct State {
    links: Mutex<Vec<TcpStream>>,
    /// New links are accepted and closed at once.
    refusing: AtomicBool,
    /// Nothing is read from either side, so that buffers fill up as with a dead network.
    stalled: AtomicBool,
    delay_ms: AtomicU64,
    accepted: AtomicU64,
    ended: AtomicBool,
}

pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
}

impl Proxy {
    /// Listens on a free port and forwards to `target` on 127.0.0.1.
    pub fn to(target: u16) -> Proxy {
        let port = super::server::free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("bind the proxy");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for inbound in listener.incoming().flatten() {
                if shared.ended.load(Ordering::SeqCst) {
                    return;
                }
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                if shared.refusing.load(Ordering::SeqCst) {
                    continue;
                }
                if let Ok(outbound) = TcpStream::connect(("127.0.0.1", target)) {
                    link(&shared, inbound, outbound);
                }
            }
        });
        Proxy { port, state }
    }

    /// Closes every link; new ones are served again.
    pub fn cut(&self) {
        for stream in self.state.links.lock().expect("links").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Closes every link and, while `refuse` is on, every new one.
    pub fn refuse(&self, refuse: bool) {
        self.state.refusing.store(refuse, Ordering::SeqCst);
        if refuse {
            self.cut();
        }
    }

    pub fn stall(&self, stall: bool) {
        self.state.stalled.store(stall, Ordering::SeqCst);
    }

    /// Holds each chunk for this long before it goes on.
    pub fn delay(&self, delay: Duration) {
        self.state.delay_ms.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    /// How many connections have come in.
    pub fn accepted(&self) -> u64 {
        self.state.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        self.cut();
        let _ = TcpStream::connect(("127.0.0.1", self.port)); // wakes the listener
    }
}

fn link(state: &Arc<State>, inbound: TcpStream, outbound: TcpStream) {
    let copy = |stream: &TcpStream| stream.try_clone().expect("clone a socket");
    state.links.lock().expect("links").extend([copy(&inbound), copy(&outbound)]);
    for (from, to) in [(copy(&inbound), copy(&outbound)), (outbound, inbound)] {
        let state = Arc::clone(state);
        thread::spawn(move || pump(&state, from, to));
    }
}

fn pump(state: &State, mut from: TcpStream, mut to: TcpStream) {
    let _ = from.set_read_timeout(Some(Duration::from_millis(20)));
    let mut chunk = [0; 65536];
    while !state.ended.load(Ordering::SeqCst) {
        if state.stalled.load(Ordering::SeqCst) {
            thread::park_timeout(Duration::from_millis(5));
            continue;
        }
        match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => {
                let delay = state.delay_ms.load(Ordering::SeqCst);
                if delay > 0 {
                    thread::park_timeout(Duration::from_millis(delay));
                }
                while state.stalled.load(Ordering::SeqCst) && !state.ended.load(Ordering::SeqCst) {
                    thread::park_timeout(Duration::from_millis(5));
                }
                if to.write_all(&chunk[..n]).is_err() {
                    break;
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
