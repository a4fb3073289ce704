//! The wall clock is set while a server runs. It tells when keys expire and what time it is, and nothing else.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::client::Client;
use crate::common::server::{Launch, fresh_dir};
use crate::common::{SOON, light, wait_for};

/// Shifts the wall clock of a process by the seconds that a file holds, as long as it is loaded before the C library.
const SHIFT: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *seconds = MAP_FAILED;

__attribute__((constructor)) static void open_file(void) {
    int file = open(getenv("CLOCK_SHIFT"), O_RDONLY);
    if (file >= 0) seconds = mmap(0, sizeof *seconds, PROT_READ, MAP_SHARED, file, 0);
}

int clock_gettime(clockid_t id, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, id, time);
    if (result == 0 && id == CLOCK_REALTIME && seconds != MAP_FAILED) time->tv_sec += *seconds;
    return result;
}
"#;

fn compile(source: &str, library: &Path) {
    let mut cc = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(library)
        .args(["-x", "c", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the compiler that builds the dependencies");
    cc.stdin.take().expect("piped").write_all(source.as_bytes()).expect("hand the source over");
    assert!(cc.wait().expect("wait for the compiler").success());
}

#[test]
fn a_wall_clock_that_is_set_back_stops_nothing() {
    let _light = light();
    let dir = fresh_dir();
    let (library, shift) = (dir.join("shift.so"), dir.join("shift"));
    compile(SHIFT, &library);
    let clock = File::create(&shift).expect("make the file");
    let set = |seconds: i64| clock.write_all_at(&seconds.to_ne_bytes(), 0).expect("set the clock");
    set(0);
    let launch = Launch::subject().args(&["--io-threads", "1"]);
    let server = launch.env("LD_PRELOAD", &library).env("CLOCK_SHIFT", &shift).start();
    let mut c = server.connect();
    let mut idle = server.connect();
    idle.expect("PING", "+PONG");
    c.ok("SET used v");
    c.ok("SET k v PX 1");
    wait_for("the key is found dead", SOON, || c.info_int("expired_keys") == 1);
    let now = |c: &mut Client| c.run("TIME").items()[0].text().parse::<i64>().expect("a number");
    let before = now(&mut c);
    set(-3600);
    wait_for("the clock is set", SOON, || now(&mut c) < before);
    // Dead keys are found, and not only when somebody asks for them.
    c.ok("SET k v PX 1");
    wait_for("the next one is, too", SOON, || c.info_int("expired_keys") == 2);
    // What was used a moment ago was not used months ago, which LRU would take for the first to go.
    assert!(c.run("OBJECT IDLETIME used").int() < 600);
    assert!(c.info_int("uptime_in_seconds") < 600);
    // Changes are saved.
    c.ok("CONFIG SET save \"1 1\"");
    wait_for("they are saved", SOON, || c.info_int("rdb_changes_since_last_save") == 0);
    // A client that says nothing is closed.
    c.ok("CONFIG SET timeout 1");
    idle.set_read_timeout(SOON);
    assert!(idle.closed());
    fs::remove_dir_all(dir).expect("clean up");
}
