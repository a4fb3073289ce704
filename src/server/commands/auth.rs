//! AUTH, HELLO and RESET: who a client is and which protocol it speaks.

use std::sync::atomic::Ordering;

use subtle::ConstantTimeEq;

use crate::base::version;
use crate::command::Client;
use crate::command::client::ReplyMode;
use crate::command::request::{Credentials, Hello};
use crate::resp::Reply;
use crate::server::commands::{fail, pubsub};
use crate::server::node::Node;

const WRONG: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?";
const HELLO_FIRST: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time";

/// Checks a user's password in a time that does not tell how much of it was right.
fn authenticate(node: &Node, client: &mut Client, credentials: &Credentials) -> Result<(), &'static str> {
    let config = node.config.load();
    let password = &config.requirepass.0;
    if credentials.user.is_none() && password.is_empty() {
        return Err(NO_PASSWORD);
    }
    let known = credentials.user.as_ref().is_none_or(|user| user == b"default");
    let right = password.is_empty() || bool::from(password.as_slice().ct_eq(&credentials.password));
    if !(known && right) {
        node.net.auth_failed.fetch_add(1, Ordering::Relaxed);
        return Err(WRONG);
    }
    client.set_authenticated(true);
    client.user = "default".into();
    client.version += 1;
    Ok(())
}

pub fn auth(node: &Node, client: &mut Client, credentials: &Credentials, reply: &mut Reply) {
    match authenticate(node, client, credentials) {
        Ok(()) => reply.ok(),
        Err(text) => fail(node, client, reply, text),
    }
}

pub fn hello(node: &Node, client: &mut Client, hello: Hello, reply: &mut Reply) {
    if let Some(credentials) = &hello.credentials
        && let Err(text) = authenticate(node, client, credentials)
    {
        return fail(node, client, reply, text);
    }
    if !client.is_authenticated() {
        return fail(node, client, reply, HELLO_FIRST);
    }
    if let Some(name) = hello.name {
        client.name = name;
    }
    if let Some(protocol) = hello.protocol {
        set_protocol(client, protocol == 3);
    }
    client.version += 1;
    reply.set_resp3(client.resp3);
    let config = node.config.load();
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk_str(version::REDIS);
    reply.bulk(b"proto");
    reply.int(if client.resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.int(client.id as i64);
    reply.bulk(b"mode");
    reply.bulk(if config.cluster_enabled { b"cluster" } else { b"standalone" });
    reply.bulk(b"role");
    reply.bulk(if node.is_replica() { b"replica" } else { b"master" });
    reply.bulk(b"modules");
    reply.array(0);
}

fn set_protocol(client: &mut Client, resp3: bool) {
    client.resp3 = resp3;
    client.settle_subscribed();
    if let Some(subscriber) = &client.subscriber {
        subscriber.set_resp3(resp3);
    }
}

/// The executor forgets the transaction; this, everything else.
pub fn reset(node: &Node, client: &mut Client, reply: &mut Reply) {
    pubsub::forget(node, client);
    set_protocol(client, node.config.load().client_default_resp == 3);
    client.db = 0;
    client.name.clear();
    client.reply_mode = ReplyMode::On;
    client.readonly = false;
    client.set_asking(false);
    client.no_evict = false;
    client.no_touch = false;
    client.set_authenticated(node.admits_without_password());
    client.user = "default".into();
    client.version += 1;
    reply.set_resp3(client.resp3);
    reply.simple("RESET");
}
