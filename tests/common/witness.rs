//! How long other clients wait beside one who means harm: what the server takes, not what the machine does. The answer
//! counts from before the request is sent until it is at the client's socket, by the time that the system gives it, so
//! that nobody waits for a turn of the client's thread; the time for which the system let the server's workers wait for a
//! core is taken off. A server of the same program that nobody troubles is asked in turn, as what to compare with.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::client::{Client, encode};
use super::server::{Launch, Server, subject_is_real};

/// Answers of one round; one in a thousand may be slower than what is told of it.
const ANSWERS: usize = 2_000;
/// Rounds until the server has failed: one of them is enough to show that it was not the server.
const ROUNDS: usize = 12;
/// p99.9 of a client whose server is idle, on a quiet machine.
const IDLE: Duration = Duration::from_micros(170);
/// Where a client of an idle server waits for longer so often, the machine has no cores for the test, and holds up what
/// the server's threads wait for among themselves, too: such a round tells nothing of the server.
const OVERLOADED: Duration = Duration::from_millis(8);
/// How long another client may wait for an answer at worst, whatever the reason.
const QUICKLY: Duration = Duration::from_secs(2);

/// Another client of a server.
struct Witness {
    client: Client,
    /// Where the system says how long its workers have waited for a core.
    workers: Vec<PathBuf>,
}

impl Witness {
    fn new(server: &Server) -> Self {
        let mut client = server.connect();
        client.ok("SET witness v");
        stamp_arrivals(client.stream().as_raw_fd());
        let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("the server's threads");
        let is_worker = |task: &PathBuf| {
            fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("worker-"))
        };
        let workers = tasks.flatten().map(|task| task.path()).filter(is_worker);
        Self { client, workers: workers.map(|task| task.join("schedstat")).collect() }
    }

    fn waited_for_a_core(&self) -> Duration {
        let waited = |file: &PathBuf| -> Option<u64> {
            fs::read_to_string(file).ok()?.split_whitespace().nth(1)?.parse().ok()
        };
        Duration::from_nanos(self.workers.iter().filter_map(waited).sum())
    }

    /// How long the server took for an answer, and how long the answer took.
    fn ask(&mut self) -> (Duration, Duration) {
        let waited = self.waited_for_a_core();
        let began = now();
        self.client.stream().write_all(&encode(&["GET", "witness"])).expect("send");
        let arrived = arrival(self.client.stream().as_raw_fd(), b"$1\r\nv\r\n");
        let took = arrived.saturating_sub(began);
        (took.saturating_sub(self.waited_for_a_core().saturating_sub(waited)), took)
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}

/// Has the system note when something arrives at a socket.
fn stamp_arrivals(socket: i32) {
    let on: libc::c_int = 1;
    // SAFETY: the option is an int, which lives until the call is over.
    let set = unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// Waits for an answer; when it arrived.
fn arrival(socket: i32, answer: &[u8]) -> Duration {
    let mut bytes = [0_u8; 64];
    let mut control = [0_u64; 16];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all fields of a msghdr may be zero.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the message names memory that lives until the call is over.
    let got = unsafe { libc::recvmsg(socket, &raw mut message, 0) };
    if got < 0 && std::io::Error::last_os_error().kind() == ErrorKind::Interrupted {
        return arrival(socket, answer);
    }
    assert_eq!(&bytes[..usize::try_from(got).unwrap_or(0)], answer, "the witness is answered");
    // SAFETY: the system has filled the message; what it says of the control part lies in it.
    let stamp = unsafe {
        let head = libc::CMSG_FIRSTHDR(&raw const message);
        (!head.is_null() && (*head).cmsg_type == libc::SCM_TIMESTAMPNS)
            .then(|| libc::CMSG_DATA(head).cast::<libc::timespec>().read_unaligned())
    };
    stamp.map_or_else(now, |at| Duration::new(at.tv_sec as u64, at.tv_nsec as u32))
}

/// Raised when it goes, also because a test has failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lets `harm` be done while another client asks again and again, and is answered as if nobody did: 99.9 % of its
/// answers within twice the time of an idle server.
pub fn beside_another(server: &Server, mut harm: impl FnMut()) {
    let idle = Launch::subject().args(&["--io-threads", "1"]).start();
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        let [own, other, waited] = round(server, &idle, &mut harm);
        println!("p99.9 {own:?}, idle {other:?}, with all waiting {waited:?}");
        // Redis does not hold it.
        if own <= 2 * other.max(IDLE) || subject_is_real() {
            return;
        }
        if waited < OVERLOADED {
            seen.push((own, other));
        }
    }
    assert!(
        seen.len() < ROUNDS / 2,
        "p99.9 of another client beyond twice that of an idle server's in each round: {seen:?}"
    );
}

/// p99.9 of what the server took, of what the idle one took, and of how long its answers took.
fn round(server: &Server, idle: &Server, harm: &mut impl FnMut()) -> [Duration; 3] {
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut times = std::thread::scope(|scope| {
        let witness = scope.spawn(|| {
            let (mut here, mut there) = (Witness::new(server), Witness::new(idle));
            let mut times = [const { Vec::new() }; 3];
            while !over.load(Ordering::Relaxed) {
                let (took, waited) = here.ask();
                assert!(waited < QUICKLY, "an answer took {waited:?}");
                let (other, whole) = there.ask();
                for (times, time) in times.iter_mut().zip([took, other, whole]) {
                    times.push(time);
                }
                asked.fetch_add(1, Ordering::Relaxed);
            }
            times
        });
        let ends = Over(&over);
        while asked.load(Ordering::Relaxed) < ANSWERS && !witness.is_finished() {
            harm();
        }
        drop(ends);
        witness.join().expect("the witness was answered")
    });
    times.each_mut().map(|times| p999(times))
}

fn p999(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() * 999 / 1000]
}
