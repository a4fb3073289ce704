//! Channels across connections: order, many listeners, what closing leaves behind.

use crate::common::client::Client;
use crate::common::server::{Launch, Server, subject_is_real};
use crate::common::{SOON, wait_for};

#[test]
fn messages_reach_every_listener_once_and_in_order() {
    let server = Server::subject();
    let mut publisher = server.connect();
    let mut listeners: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for (i, listener) in listeners.iter_mut().enumerate() {
        if i % 2 == 0 {
            listener.run("SUBSCRIBE ch");
        } else {
            listener.run("HELLO 3");
            listener.run("PSUBSCRIBE c?");
        }
    }
    for i in 0..200 {
        publisher.expect(&format!("PUBLISH ch {i}"), ":20");
    }
    for (i, listener) in listeners.iter_mut().enumerate() {
        for n in 0..200 {
            let expected = if i % 2 == 0 {
                format!("[\"message\", \"ch\", \"{n}\"]")
            } else {
                format!("push [\"pmessage\", \"c?\", \"ch\", \"{n}\"]")
            };
            assert_eq!(listener.read().to_string(), expected, "listener {i}");
        }
    }
}

#[test]
fn who_leaves_is_forgotten() {
    let server = Server::subject();
    let mut judge = server.connect();
    {
        let mut gone = server.connect();
        gone.run("SUBSCRIBE a");
        gone.run("PSUBSCRIBE b*");
        gone.run("SSUBSCRIBE c");
        judge.expect("PUBSUB NUMSUB a", "[\"a\", :1]");
        judge.expect("PUBSUB SHARDNUMSUB c", "[\"c\", :1]");
    }
    wait_for("a closed connection's channels go", SOON, || {
        judge.run("PUBSUB CHANNELS").to_string() == "[]"
            && judge.run("PUBSUB NUMPAT").int() == 0
            && judge.run("PUBSUB SHARDCHANNELS").to_string() == "[]"
    });
    let mut reset = server.connect();
    reset.run("SUBSCRIBE a");
    reset.expect("RESET", "+RESET");
    judge.expect("PUBLISH a x", ":0");
    reset.expect("PING", "+PONG");
}

#[test]
fn channels_of_slots_are_a_space_of_their_own() {
    let server = Server::subject();
    let mut publisher = server.connect();
    let mut listener = server.connect();
    listener.expect("SSUBSCRIBE ch", "[\"ssubscribe\", \"ch\", :1]");
    publisher.expect("PUBLISH ch x", ":0");
    publisher.expect("SPUBLISH ch y", ":1");
    assert_eq!(listener.read().to_string(), "[\"smessage\", \"ch\", \"y\"]");
    listener.expect("SUNSUBSCRIBE", "[\"sunsubscribe\", \"ch\", :0]");
    listener.expect("PING", "+PONG");
}

/// Since 7.2 a client's own message never comes in the middle of the reply to what it sent.
#[test]
fn a_message_to_oneself_follows_the_reply() {
    if subject_is_real() {
        return;
    }
    let server = Server::subject();
    let mut client = server.connect();
    client.run("HELLO 3");
    client.run("SUBSCRIBE ch");
    client.expect("PUBLISH ch 1", ":1");
    assert_eq!(client.read().to_string(), "push [\"message\", \"ch\", \"1\"]");
    client.ok("MULTI");
    client.run("PUBLISH ch 2");
    client.run("PING");
    client.expect("EXEC", "[:1, +PONG]");
    assert_eq!(client.read().to_string(), "push [\"message\", \"ch\", \"2\"]");
}

#[test]
fn nothing_comes_after_the_last_channel_is_left() {
    let server = Server::subject();
    let mut publisher = server.connect();
    let mut listener = server.connect();
    for round in 0..50 {
        listener.run("SUBSCRIBE ch");
        for _ in 0..20 {
            publisher.send(&["PUBLISH", "ch", "x"]);
        }
        listener.send(&["UNSUBSCRIBE", "ch"]);
        // Messages, then the confirmation, then ordinary replies only.
        wait_for("the confirmation", SOON, || listener.read().to_string() == "[\"unsubscribe\", \"ch\", :0]");
        listener.expect(&format!("ECHO {round}"), &format!("\"{round}\""));
        for _ in 0..20 {
            publisher.read();
        }
    }
}

/// A client that has its reply, and then asks on another connection, first finds there what the reply was about.
#[test]
fn news_stand_before_what_is_asked_afterwards() {
    let server = Launch::subject().args(&["--io-threads", "4"]).start();
    let mut writer = server.connect();
    let mut listeners: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    for listener in &mut listeners {
        listener.run("HELLO 3");
        listener.run("SUBSCRIBE ch");
        listener.run("CLIENT TRACKING ON");
    }
    for i in 0..300 {
        for listener in &mut listeners {
            listener.run("GET k");
        }
        writer.expect(&format!("PUBLISH ch {i}"), ":8");
        writer.ok("SET k v");
        for listener in &mut listeners {
            listener.expect("PING", &format!("push [\"message\", \"ch\", \"{i}\"]"));
            assert_eq!(listener.read().to_string(), "push [\"invalidate\", [\"k\"]]");
            assert_eq!(listener.read().to_string(), "+PONG");
        }
    }
}
