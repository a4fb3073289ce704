//! Scripts for notification and reconfiguration.

use std::fs;
use std::path::Path;

use crate::common::server::fresh_dir;
use crate::common::{light, wait_for};

use super::{FAILOVER, Guard, Program, field, nodes, script, wait_until_formed};

#[test]
fn scripts_get_their_arguments_and_are_tried_again() {
    let _alone = light();
    let servers = nodes(Program::Ours);
    let dir = fresh_dir();
    let (notes, moves) = (dir.join("notes"), dir.join("moves"));
    let notify = script(&dir, "notify", &format!("echo \"$#:$1:$2\" >> {}", notes.display()));
    // Fails with 1 at first, which asks for another try.
    let reconfig = script(
        &dir,
        "reconfig",
        &format!("echo \"$*\" >> {0}\n[ $(wc -l < {0}) -ge 3 ] || exit 1", moves.display()),
    );
    let lines = format!(
        "sentinel notification-script mymaster {notify}\nsentinel client-reconfig-script mymaster {reconfig}\n"
    );
    let guard = Guard::start(Program::Ours, servers[0].port, 1, &lines);
    let mut client = guard.connect();
    client.ok("SENTINEL DEBUG script-retry-delay 50");
    wait_for("a replica is good enough", FAILOVER, || {
        client.run("SENTINEL FAILOVER mymaster").to_string() == "+OK"
    });
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    wait_for("the third try", FAILOVER, || read(&moves).lines().count() == 3);
    let new = guard.primary();
    let want = format!("mymaster leader start 127.0.0.1 {} 127.0.0.1 {new}", servers[0].port);
    assert!(read(&moves).lines().all(|line| line == want), "{}", read(&moves));
    let switch = format!("2:+switch-master:mymaster 127.0.0.1 {} 127.0.0.1 {new}", servers[0].port);
    wait_for("the switch is notified", FAILOVER, || read(&notes).lines().any(|l| l == switch));
    wait_for("a new epoch is notified", FAILOVER, || {
        read(&notes).lines().any(|l| l.starts_with("2:+new-epoch:"))
    });
    wait_for("nothing is left in the queue", FAILOVER, || {
        client.run("SENTINEL PENDING-SCRIPTS").items().is_empty()
    });
    let _ = fs::remove_dir_all(&dir);
}

/// Whoever follows another's failover calls its script, too. It gets none of our descriptors, and is killed when it does
/// not end.
#[test]
fn a_script_gets_no_descriptors_and_is_killed_when_it_does_not_end() {
    let _alone = light();
    let servers = nodes(Program::Ours);
    let old = servers[0].port.to_string();
    let dir = fresh_dir();
    let notes = dir.join("notes");
    let body = "{ echo \"$*\"; for fd in /proc/$$/fd/*; do readlink $fd; done; echo end; } >> NOTES\nexec sleep 1000";
    let path = script(&dir, "reconfig", &body.replace("NOTES", &notes.display().to_string()));
    let observed = format!("sentinel client-reconfig-script mymaster {path}\n");
    let all = ["", &observed].map(|lines| Guard::start(Program::Ours, servers[0].port, 2, lines));
    wait_until_formed(&all);
    let mut client = all[1].connect();
    client.ok("SENTINEL DEBUG script-max-runtime 500");
    let mut subscriber = all[1].connect();
    subscriber.run("SUBSCRIBE -script-timeout");
    wait_for("a replica is good enough", FAILOVER, || {
        all[0].connect().run("SENTINEL FAILOVER mymaster").to_string() == "+OK"
    });
    let told = subscriber.read().items()[2].text();
    let pid = told.strip_prefix(&format!("{path} ")).unwrap_or_else(|| panic!("{told}"));
    assert!(pid.parse::<u32>().is_ok_and(|pid| pid > 1), "{told}");
    // Killed by a signal: it is tried again later.
    wait_for("it is scheduled again", FAILOVER, || {
        let queue = client.run("SENTINEL PENDING-SCRIPTS");
        let [script] = queue.items() else { return false };
        field(script, "flags") == "scheduled"
            && field(script, "retry-num") == "1"
            && field(script, "pid") == "0"
    });
    let text = fs::read_to_string(&notes).expect("it ran");
    let mut lines = text.lines();
    let want = format!("mymaster observer start 127.0.0.1 {old} 127.0.0.1 {}", all[1].primary());
    assert_eq!(lines.next(), Some(want.as_str()));
    // What this process was started with may be open, too, but nothing that the sentinel opened.
    let open: Vec<&str> = lines.take_while(|line| *line != "end").collect();
    assert!(open.contains(&"/dev/null"), "{text}");
    let folder = all[1].dir.display().to_string();
    let ours =
        |to: &&&str| to.starts_with("socket:") || to.starts_with("anon_inode:") || to.starts_with(&folder);
    assert_eq!(open.iter().find(ours), None, "{text}");
    let _ = fs::remove_dir_all(&dir);
}
