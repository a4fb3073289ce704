//! The report of a crash: a fatal signal or a panic.
//!
//! After the report of a signal the process dies of that very signal, so that the exit status and a
//! core file show it. A handler may do little that is safe; this one first writes what needs no
//! memory (the signal, the address), then tries the rest (stack, INFO) under an alarm that ends the
//! process if the attempt hangs, for example because the crash was inside the allocator.

use std::backtrace::Backtrace;
use std::ffi::{CStr, CString};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use libc::{c_int, c_void, siginfo_t};

use crate::base::version;

const START: &str = "\n\n=== KEYSTEAD BUG REPORT START: Cut & paste starting from here ===\n";
const END: &str = "\n=== KEYSTEAD BUG REPORT END. Make sure to include from START to END. ===\n";

const FATAL: [c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT];

/// How long the part of a report that may hang may take.
const PATIENCE_SECONDS: u32 = 10;

/// More about the server for the report, such as INFO.
type Details = dyn Fn() -> String + Send + Sync;

// A handler receives nothing but the signal: what it needs must lie in statics.
static ENABLED: AtomicBool = AtomicBool::new(true);
static EXIT_ON_PANIC: AtomicBool = AtomicBool::new(false);
static LOG: OnceLock<Option<CString>> = OnceLock::new();
static DETAILS: OnceLock<Box<Details>> = OnceLock::new();
/// The signal that is being reported; 0 for none. A second one ends the process at once.
static REPORTING: AtomicI32 = AtomicI32::new(0);

/// Installs the handlers and the panic hook. `log`: the file that reports are appended to; `None`
/// for standard output. Only the first call of a process counts.
pub fn install(log: Option<&Path>) {
    let path = log.and_then(|path| CString::new(path.as_os_str().as_bytes()).ok());
    if LOG.set(path).is_err() {
        return;
    }
    for signal in FATAL {
        handle(signal, on_signal);
    }
    guard_thread();
    std::panic::set_hook(Box::new(on_panic));
}

/// Bytes of stack for a handler: reading debug information for the names of functions takes more
/// than the few kilobytes that the standard library sets aside.
const SIGNAL_STACK_BYTES: usize = 256 * 1024;

/// Gives the calling thread a stack for reports. To be called once by every thread of the server;
/// the report of a thread without it may end before the stack trace.
pub fn guard_thread() {
    // Not from the allocator: it takes no memory before it is used, and is no part of what data take.
    // SAFETY: a new mapping. It is never unmapped, because the kernel may use it as long as the thread lives;
    // threads of the server live as long as the process.
    unsafe {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let memory = libc::mmap(std::ptr::null_mut(), SIGNAL_STACK_BYTES, access, kind, -1, 0);
        if memory == libc::MAP_FAILED {
            return;
        }
        let stack = libc::stack_t { ss_sp: memory, ss_flags: 0, ss_size: SIGNAL_STACK_BYTES };
        libc::sigaltstack(&raw const stack, std::ptr::null_mut());
    }
}

/// Follows `crash-log-enabled` and `use-exit-on-panic`, at the start and when they change.
pub fn configure(enabled: bool, exit_on_panic: bool) {
    ENABLED.store(enabled, Ordering::Relaxed);
    EXIT_ON_PANIC.store(exit_on_panic, Ordering::Relaxed);
}

/// Says where the report finds more about the server. Only the first call counts.
pub fn describe(details: impl Fn() -> String + Send + Sync + 'static) {
    // A second server in one process (tests) describes nothing new.
    let _ = DETAILS.set(Box::new(details));
}

fn handle(signal: c_int, handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void)) {
    // SAFETY: `action` is plain old data and lives through the call; the handler has the signature
    // that SA_SIGINFO asks for. SA_ONSTACK: threads have a stack for signals, so that an overflown
    // stack is reported too. SA_NODEFER: a crash inside the report must end it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(signal, &raw const action, std::ptr::null_mut());
    }
}

/// Lets the process die of `signal`.
fn die(signal: c_int) -> ! {
    // SAFETY: the default action replaces our handler, so raising ends the process; should the signal
    // be blocked, `_exit` does.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
        libc::_exit(1)
    }
}

extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    if !ENABLED.load(Ordering::Relaxed) || REPORTING.swap(signal, Ordering::SeqCst) != 0 {
        die(signal);
    }
    let out = Output::open();
    let mut line = StackText::default();
    // SAFETY: the kernel passes a valid siginfo; the fields read are set for these signals.
    let (code, address, sender) = unsafe { ((*info).si_code, (*info).si_addr() as usize, (*info).si_pid()) };
    let _ =
        writeln!(line, "{START}Keystead {} crashed by signal: {signal}, si_code: {code}", version::KEYSTEAD);
    // Codes up to 0 mean that a process sent it.
    let _ = if code <= 0 {
        writeln!(line, "Sent by process: {sender}")
    } else {
        writeln!(line, "Accessing address: {address:#x}")
    };
    out.write(line.as_bytes());

    handle(libc::SIGALRM, on_alarm);
    // SAFETY: alarm takes a number of seconds.
    unsafe { libc::alarm(PATIENCE_SECONDS) };
    out.report_rest();
    die(signal);
}

/// The report hangs: what was written must do.
extern "C" fn on_alarm(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    Output::open().write(b"(the rest of the report could not be made)\n");
    die(match REPORTING.load(Ordering::SeqCst) {
        0 => libc::SIGABRT,
        signal => signal,
    });
}

fn on_panic(panic: &std::panic::PanicHookInfo) {
    // One report is enough if threads panic together; the others wait for the end.
    if REPORTING.swap(libc::SIGABRT, Ordering::SeqCst) != 0 {
        loop {
            std::thread::park();
        }
    }
    if ENABLED.load(Ordering::Relaxed) {
        let out = Output::open();
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name").to_owned();
        out.write(START.as_bytes());
        out.write(
            format!("Keystead {} crashed by a panic in thread {name}\n{panic}\n", version::KEYSTEAD)
                .as_bytes(),
        );
        handle(libc::SIGALRM, on_alarm);
        // SAFETY: alarm takes a number of seconds.
        unsafe { libc::alarm(PATIENCE_SECONDS) };
        out.report_rest();
    }
    if EXIT_ON_PANIC.load(Ordering::Relaxed) {
        // SAFETY: `_exit` ends the process without running anything of it.
        unsafe { libc::_exit(1) };
    }
    die(libc::SIGABRT);
}

/// The log file or standard output, as a descriptor.
#[derive(Clone, Copy)]
struct Output(c_int);

impl Output {
    fn open() -> Self {
        let path: Option<&CStr> = LOG.get().and_then(|path| path.as_deref());
        // SAFETY: the path ends with a zero byte and lives in a static.
        let file = path.map_or(-1, |path| unsafe {
            libc::open(path.as_ptr(), libc::O_APPEND | libc::O_CREAT | libc::O_WRONLY, 0o644)
        });
        Self(if file == -1 { libc::STDOUT_FILENO } else { file })
    }

    fn write(self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // SAFETY: the pointer and the length are those of a slice.
            let written = unsafe { libc::write(self.0, bytes.as_ptr().cast(), bytes.len()) };
            match usize::try_from(written) {
                Ok(n) if n > 0 => bytes = &bytes[n..],
                _ => return,
            }
        }
    }

    /// What needs memory and locks.
    fn report_rest(self) {
        self.write(b"\n------ STACK TRACE ------\n");
        self.write(Backtrace::force_capture().to_string().as_bytes());
        if let Some(details) = DETAILS.get() {
            self.write(b"\n------ INFO OUTPUT ------\n");
            self.write(details().as_bytes());
        }
        self.write(END.as_bytes());
    }
}

/// Text on the stack, for when memory must not be asked for. What does not fit is cut.
struct StackText {
    bytes: [u8; 512],
    len: usize,
}

impl Default for StackText {
    fn default() -> Self {
        Self { bytes: [0; 512], len: 0 }
    }
}

impl StackText {
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::fmt::Write for StackText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = &mut self.bytes[self.len..];
        let n = text.len().min(room.len());
        room[..n].copy_from_slice(&text.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};

    /// How the child dies; unset in an ordinary run of the tests.
    const HOW: &str = "KEYSTEAD_TEST_CRASH";

    /// Not a test of its own: the body of the processes that the tests below start.
    #[test]
    fn child() {
        let Ok(how) = std::env::var(HOW) else { return };
        let log = std::env::var_os("KEYSTEAD_TEST_LOG");
        install(log.as_ref().map(Path::new));
        describe(|| "# Server\r\nkeystead_version:test\r\n".into());
        configure(how != "quiet", how == "panic-exit");
        guard_thread();
        match how.as_str() {
            "panic" | "panic-exit" => panic!("a bug called {how}"),
            "overflow" => println!("{}", deep(&[0; 1000])),
            "hang" => {
                REPORTING.store(libc::SIGBUS, Ordering::SeqCst);
                handle(libc::SIGALRM, on_alarm);
                // SAFETY: alarm takes a number of seconds; one is enough for a report that never ends.
                unsafe { libc::alarm(1) };
                loop {
                    std::thread::park();
                }
            }
            // SAFETY: the process is there to die.
            _ => unsafe {
                std::ptr::null_mut::<u8>().wrapping_add(64).write_volatile(1);
            },
        }
    }

    #[expect(unconditional_recursion)]
    #[inline(never)]
    fn deep(above: &[u64; 1000]) -> u64 {
        let mut here = *above;
        here[(above[0] % 1000) as usize] += 1;
        std::hint::black_box(deep(&here)) + here[999]
    }

    fn die_of(how: &str, log: Option<&Path>) -> (ExitStatus, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "server::process::crash::tests::child", "--nocapture"]).env(HOW, how);
        if let Some(log) = log {
            command.env("KEYSTEAD_TEST_LOG", log);
        }
        let output = command.output().unwrap();
        (output.status, String::from_utf8_lossy(&output.stdout).into_owned())
    }

    #[test]
    fn a_bad_access_is_reported_and_shows_in_the_exit_status() {
        let (status, report) = die_of("segv", None);
        assert_eq!(status.signal(), Some(libc::SIGSEGV), "{report}");
        for part in [
            START,
            "crashed by signal: 11, si_code: 1\nAccessing address: 0x40\n",
            "tests::child",
            "keystead_version:test",
            END,
        ] {
            assert!(report.contains(part), "{part} is missing: {report}");
        }
    }

    #[test]
    fn an_overflown_stack_is_reported() {
        let (status, report) = die_of("overflow", None);
        assert_eq!(status.signal(), Some(libc::SIGSEGV), "{report}");
        assert!(report.contains("crashed by signal: 11") && report.contains("deep"), "{report}");
    }

    #[test]
    fn a_panic_is_reported_and_aborts() {
        let path = std::env::temp_dir().join(format!("keystead-crash-{}", std::process::id()));
        let (status, _) = die_of("panic", Some(&path));
        let report = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{report}");
        for part in [START, "crashed by a panic in thread", "a bug called panic", "tests::child", END] {
            assert!(report.contains(part), "{part} is missing: {report}");
        }
    }

    #[test]
    fn directives_steer_the_report_and_the_exit() {
        let (status, report) = die_of("panic-exit", None);
        assert_eq!(status.code(), Some(1), "{report}");
        let (status, report) = die_of("quiet", None);
        assert_eq!(status.signal(), Some(libc::SIGSEGV));
        assert!(!report.contains(START), "{report}");
    }

    #[test]
    fn a_report_that_hangs_is_cut_short() {
        let (status, report) = die_of("hang", None);
        assert_eq!(status.signal(), Some(libc::SIGBUS));
        assert!(report.contains("the rest of the report could not be made"), "{report}");
    }
}
