//! The file of a replica and of its primary: full synchronisations, WAITAOF.

use crate::common::server::{Launch, Server};
use crate::common::{SOON, wait_for};
use crate::workload::{digest, every_type};

use super::{aof, stop};

/// Data that came and went without a record leave the files behind: they are made anew.
#[test]
fn a_full_synchronisation_that_breaks_off_leaves_no_old_data_in_the_files() {
    let primary = Launch::subject().args(&["--databases", "20"]).start();
    let mut on_primary = primary.connect();
    on_primary.ok("SELECT 18");
    on_primary.ok("SET too far");
    let mut replica = aof(&["--appendfsync", "always"]);
    let mut client = replica.connect();
    client.ok("SET old x");
    client.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    wait_for("the load fails", SOON, || {
        replica.log().contains("Redis server configured to handle more than 16 databases")
    });
    wait_for("it is let in", SOON, || client.run("REPLICAOF NO ONE").to_string() == "+OK");
    wait_for("the load is over", SOON, || client.info("loading") == "0");
    wait_for("a base of what is there now", SOON, || {
        client.info("aof_rewrite_scheduled") == "0" && client.info("aof_rewrite_in_progress") == "0"
    });
    client.expect("DBSIZE", ":0");
    client.ok("SET new x");
    replica.kill();
    replica.start_again();
    replica.connect().expect("EXISTS old", ":0");
    replica.connect().expect("GET new", "\"x\"");
}

#[test]
fn a_full_synchronisation_begins_the_file_anew() {
    let primary = Server::subject();
    let mut on_primary = primary.connect();
    every_type(&mut on_primary, true);
    let mut replica = aof(&[]);
    let mut client = replica.connect();
    client.ok("SET own x");
    client.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    wait_for("the link is up", SOON, || client.info("master_link_status") == "up");
    wait_for("the file is there", SOON, || {
        client.info("aof_rewrite_scheduled") == "0" && client.info("aof_rewrite_in_progress") == "0"
    });
    on_primary.pipeline(&["SET after x", "SELECT 4", "SET other x"]);
    on_primary.expect("WAIT 1 0", ":1");
    let before = digest(&mut on_primary);
    assert_eq!(digest(&mut client), before);
    client.ok("REPLICAOF NO ONE");
    stop(&mut replica);
    replica.start_again();
    assert_eq!(digest(&mut replica.connect()), before);
}

#[test]
fn waitaof_counts_what_is_on_disks() {
    if crate::common::server::subject_is_real() {
        return; // 7.0 does not have it.
    }
    let primary = aof(&["--appendfsync", "everysec"]);
    let mut client = primary.connect();
    client.ok("SET a 1");
    client.expect("WAITAOF 1 0 0", "[:1, :0]");
    let replica = aof(&["--appendfsync", "always"]);
    let mut on_replica = replica.connect();
    on_replica.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    wait_for("the link is up", SOON, || on_replica.info("master_link_status") == "up");
    client.ok("SET b 1");
    client.expect("WAITAOF 1 1 20000", "[:1, :1]");
    on_replica.ok("CONFIG SET appendonly no");
    client.ok("SET c 1");
    client.expect("WAITAOF 1 1 3000", "[:1, :0]");
}
