//! The cluster bus among real Redis 7.0 servers: our state machine and its driver join them, vote for
//! them, are elected by them, and read and write their nodes.conf. No data plane: only the bus.

mod common;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::server::{Launch, Server};
use common::{SOON, light, wait_for};
use keystead::cluster::{
    ClusterState, Config, FailoverMode, NoKeys, NodeId, Now, ReplicationFacts, SlotBitmap, View,
};
use keystead::server::control::bus::{Bus, BusHost};

/// What the bus asked of the node, for tests to look at.
struct Asked {
    started: Instant,
    offset: AtomicU64,
    replicates: Mutex<Option<(String, u16)>>,
    view: Mutex<Option<Arc<View>>>,
    delivered: Mutex<Vec<Vec<u8>>>,
    pauses: AtomicU64,
}

impl BusHost for Asked {
    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        Now { mono: self.started.elapsed().as_millis() as u64 + 1_000_000, unix: unix.as_millis() as i64 }
    }

    fn replication(&self) -> ReplicationFacts {
        // As a replica whose link is well.
        let last_io = self.replicates.lock().unwrap().as_ref().map(|_| self.now().mono);
        ReplicationFacts { offset: self.offset.load(Ordering::Relaxed), last_io }
    }

    fn set_primary(&self, _id: NodeId, ip: &str, port: u16) {
        *self.replicates.lock().unwrap() = Some((ip.to_owned(), port));
    }

    fn become_primary(&self) {
        *self.replicates.lock().unwrap() = None;
    }

    fn publish(&self, view: Arc<View>) {
        *self.view.lock().unwrap() = Some(view);
    }

    fn drop_slots(&self, _slots: &SlotBitmap) {}

    fn flush_all(&self) {}

    fn pause_writes(&self, _until: u64) {
        self.pauses.fetch_add(1, Ordering::Relaxed);
    }

    fn unpause(&self) {}

    fn deliver(&self, _channel: &[u8], payload: &[u8], _shard: bool) {
        self.delivered.lock().unwrap().push(payload.to_vec());
    }

    fn fatal(&self, what: &str) {
        panic!("{what}");
    }
}

/// One of our nodes: a bus and nothing else.
struct Ours {
    bus: Arc<Bus>,
    asked: Arc<Asked>,
    port: u16,
    dir: PathBuf,
    running: Option<(tokio::sync::oneshot::Sender<()>, std::thread::JoinHandle<()>)>,
}

impl Ours {
    fn start(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("keystead-bus-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        // The bus port is found free; the client port, which nobody listens on, is 10000 below it.
        let listener = loop {
            let l = TcpListener::bind("127.0.0.1:0").expect("a free port");
            if l.local_addr().expect("its address").port() > 11_000 {
                break l;
            }
        };
        Self::start_on(listener, dir)
    }

    fn start_on(listener: TcpListener, dir: PathBuf) -> Self {
        let bus_port = listener.local_addr().expect("its address").port();
        let port = bus_port - 10_000;
        let asked = Arc::new(Asked {
            started: Instant::now(),
            offset: AtomicU64::new(0),
            replicates: Mutex::new(None),
            view: Mutex::new(None),
            delivered: Mutex::new(Vec::new()),
            pauses: AtomicU64::new(0),
        });
        let config = Config { node_timeout_ms: 2000, port, bus_port, ..Config::default() };
        let host: Arc<dyn BusHost> = Arc::clone(&asked) as Arc<dyn BusHost>;
        let (bus, file) = Bus::open(&dir.join("nodes.conf"), config, u64::from(port), host).expect("a bus");
        listener.set_nonblocking(true).expect("a socket");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn({
            let bus = Arc::clone(&bus);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(async {
                    tokio::select! {
                        result = bus.run(file, vec![listener]) => result.expect("a running bus"),
                        _ = stopped => {}
                    }
                });
            }
        });
        Self { bus, asked, port, dir, running: Some((stop, thread)) }
    }

    fn id(&self) -> NodeId {
        self.bus.read(ClusterState::my_id)
    }

    fn meet(&self, port: u16) {
        self.bus.admin(|s, now| s.meet(now, "127.0.0.1", port, 0)).expect("an address");
    }

    fn is_replica(&self) -> bool {
        self.bus.read(ClusterState::is_replica)
    }

    fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            // A panic of the thread was printed and has failed the test's conditions.
            let _ = thread.join();
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn real_node() -> Server {
    Launch::real().cluster().start()
}

fn ask(server: &Server, command: &str) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    server.connect().cmd(&words).text()
}

/// Real primaries with the slots shared among all, and ours, which get the last shares.
fn form(real: &[Server], ours: &[&Ours]) {
    let shares = real.len() + ours.len();
    let share = |i: usize| (i * 16384 / shares, (i + 1) * 16384 / shares - 1);
    for (i, server) in real.iter().enumerate() {
        let (from, to) = share(i);
        assert_eq!(ask(server, &format!("CLUSTER ADDSLOTSRANGE {from} {to}")), "OK");
        if i > 0 {
            assert_eq!(ask(server, &format!("CLUSTER MEET 127.0.0.1 {}", real[0].port)), "OK");
        }
    }
    for (i, node) in ours.iter().enumerate() {
        let (from, to) = share(real.len() + i);
        let slots: Vec<u16> = (from as u16..=to as u16).collect();
        node.bus.admin(|s, now| s.add_slots(now, &slots)).expect("free slots");
        node.meet(real[0].port);
    }
    wait_whole(real, ours, shares);
}

fn wait_whole(real: &[Server], ours: &[&Ours], count: usize) {
    wait_for("the real nodes see a whole cluster", SOON, || {
        real.iter().all(|r| {
            let info = ask(r, "CLUSTER INFO");
            info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{count}\r\n"))
        })
    });
    wait_for("ours see a whole cluster", SOON, || {
        ours.iter().all(|o| o.bus.read(|s| s.is_ok() && s.node_infos().len() == count))
    });
}

fn real_epoch(server: &Server) -> u64 {
    let info = ask(server, "CLUSTER INFO");
    let epoch = info.lines().find_map(|line| line.strip_prefix("cluster_current_epoch:"));
    epoch.and_then(|epoch| epoch.parse().ok()).expect("a current epoch")
}

#[test]
fn ours_joins_real_nodes_and_both_see_the_same() {
    let _light = light();
    let real = [real_node(), real_node()];
    let ours = Ours::start("join");
    form(&real, &[&ours]);
    let line = format!("{} 127.0.0.1:{}@{} master -", ours.id(), ours.port, ours.port + 10_000);
    wait_for("a real node lists ours", SOON, || {
        ask(&real[1], "CLUSTER NODES").lines().any(|l| l.starts_with(&line) && l.contains(" connected "))
    });
    let slots = |text: &str| {
        let mut lines: Vec<String> = text
            .lines()
            .map(|l| {
                let words: Vec<&str> = l.split(' ').collect();
                format!("{} {} {:?}", words[0], words[1], &words[8..])
            })
            .collect();
        lines.sort();
        lines
    };
    wait_for("all list the same slots", SOON, || {
        slots(&ours.bus.read(|s| s.nodes_text(false))) == slots(&ask(&real[0], "CLUSTER NODES"))
    });
    // Publishing reaches both sides.
    let mut subscriber = real[0].connect();
    subscriber.cmd(&["SUBSCRIBE", "news"]);
    ours.bus.post(|s, now| s.publish(now, b"news", b"from ours", false));
    assert!(subscriber.read().to_string().contains("from ours"));
    ask(&real[1], "PUBLISH news there");
    wait_for("ours delivers", SOON, || ours.asked.delivered.lock().unwrap().contains(&b"there".to_vec()));
    // No quarrel about what we send.
    for server in &real {
        let log = server.log();
        assert!(!log.contains("unknown extension") || log.matches("unknown extension").count() < 10, "{log}");
        assert!(!log.contains("mismatching"), "{log}");
    }
}

/// 7.0 knows no shards and no human names: it is told host names alone, and what it takes back is forgotten.
#[test]
fn a_host_name_that_a_real_node_takes_back_is_forgotten() {
    let _light = light();
    let real = [real_node(), real_node()];
    let ours = Ours::start("names");
    form(&real, &[&ours]);
    let named = |name: &str| {
        let text = ours.bus.read(|s| s.nodes_text(false));
        let at = format!(":{}@{}{name} ", real[0].port, real[0].port + 10_000);
        text.contains(&at)
    };
    assert!(named(""));
    assert_eq!(ask(&real[0], "CONFIG SET cluster-announce-hostname real.example"), "OK");
    wait_for("ours hears its name", SOON, || named(",real.example"));
    assert_eq!(real[0].connect().cmd(&["CONFIG", "SET", "cluster-announce-hostname", ""]).text(), "OK");
    wait_for("ours forgets it", SOON, || named(""));
    // And the other way round.
    ours.bus.post(|s, now| {
        let config = Config { announce_hostname: Some("ours.example".into()), ..s.config().clone() };
        s.set_config(now, config);
    });
    let heard =
        |name: &str| ask(&real[1], "CLUSTER NODES").contains(&format!("@{}{name} ", ours.port + 10_000));
    wait_for("a real node hears our name", SOON, || heard(",ours.example"));
    ours.bus.post(|s, now| {
        let config = Config { announce_hostname: None, ..s.config().clone() };
        s.set_config(now, config);
    });
    wait_for("it forgets our name", SOON, || heard(""));
    for server in &real {
        let log = server.log();
        assert!(log.matches("unknown extension").count() < 10, "told once what it does not know: {log}");
    }
}

/// Between real nodes of 7.0, which tell no shard, ours writes a file that a 7.4 could start from: each replica
/// in its primary's shard, whoever is replica of whom.
#[test]
fn replicas_are_in_their_primarys_shard_in_what_ours_writes() {
    let _light = light();
    let real = [real_node(), real_node(), real_node()];
    let ours = Ours::start("shards");
    let (primaries, replica) = real.split_at(2);
    form(primaries, &[&ours]);
    ask(&replica[0], &format!("CLUSTER MEET 127.0.0.1 {}", primaries[0].port));
    let followed = ask(&primaries[0], "CLUSTER MYID");
    wait_for("the replica-to-be knows its primary", SOON, || {
        ask(&replica[0], &format!("CLUSTER REPLICATE {followed}")) == "OK"
    });
    let shards = || -> Vec<(String, String)> {
        ours.bus.admin(ClusterState::save_config);
        let text = std::fs::read_to_string(ours.dir.join("nodes.conf")).expect("our nodes.conf");
        let lines = text.lines().filter(|l| !l.starts_with("vars"));
        let shard = |line: &str| {
            let fields = line.split([' ', ',']).find_map(|f| f.strip_prefix("shard-id="));
            fields.expect("a shard").to_owned()
        };
        lines.map(|l| (l[..40].to_owned(), shard(l))).collect()
    };
    let shard_of = |id: &str| shards().into_iter().find(|(node, _)| node == id).expect("a line").1;
    let replica_id = ask(&replica[0], "CLUSTER MYID");
    wait_for("the replica is in the shard", SOON, || {
        ours.bus.read(|s| s.nodes_text(false)).contains(&format!("slave {followed}"))
            && shard_of(&replica_id) == shard_of(&followed)
    });
    wait_for("the replica has the data", SOON, || {
        ask(&replica[0], "INFO replication").contains("master_link_status:up")
    });
    assert_eq!(ask(&replica[0], "CLUSTER FAILOVER TAKEOVER"), "OK");
    wait_for("ours hears of the failover", SOON, || {
        ours.bus.read(|s| s.nodes_text(false)).contains(&format!("slave {replica_id}"))
    });
    assert_eq!(shard_of(&replica_id), shard_of(&followed));
    // Ours, which told its shard, becomes a replica too.
    ours.bus.admin(|s, now| s.flush_slots(now, &NoKeys)).expect("no keys");
    let primary = NodeId::parse(replica_id.as_bytes()).expect("an id");
    ours.bus.admin(|s, now| s.replicate(now, &primary, &NoKeys)).expect("a primary");
    assert_eq!(shard_of(ours.id().as_str()), shard_of(&replica_id));
}

#[test]
fn a_real_replica_is_elected_with_our_votes() {
    let _light = light();
    let mut real = [real_node(), real_node(), real_node()];
    let ours = [Ours::start("vote1"), Ours::start("vote2")];
    let (primaries, replica) = real.split_at_mut(1);
    form(primaries, &[&ours[0], &ours[1]]);
    let victim = primaries[0].connect().cmd(&["CLUSTER", "MYID"]).text();
    ask(&replica[0], &format!("CLUSTER MEET 127.0.0.1 {}", primaries[0].port));
    wait_for("the replica-to-be knows its primary", SOON, || {
        ask(&replica[0], &format!("CLUSTER REPLICATE {victim}")) == "OK"
    });
    wait_for("the replica follows", SOON, || {
        ask(&replica[0], "INFO replication").contains("master_link_status:up")
    });
    let replica_id = replica[0].connect().cmd(&["CLUSTER", "MYID"]).text();
    wait_for("ours know the replica", SOON, || {
        ours.iter().all(|o| o.bus.read(|s| s.nodes_text(false)).contains(&format!("slave {victim}")))
    });
    primaries[0].kill();
    wait_for("the replica is primary", SOON, || {
        ask(&replica[0], "CLUSTER NODES").lines().any(|l| l.contains("myself,master") && l.contains("0-"))
    });
    wait_for("ours took it over", SOON, || {
        ours.iter().all(|o| o.bus.read(|s| s.is_ok() && s.slot_owner(0).unwrap().as_str() == replica_id))
    });
}

#[test]
fn our_replica_is_elected_by_real_primaries() {
    let _light = light();
    let mut real = [real_node(), real_node(), real_node()];
    let ours = Ours::start("elected");
    form(&real, &[]);
    ours.meet(real[0].port);
    let victim = NodeId::parse(ask(&real[0], "CLUSTER MYID").as_bytes()).expect("an id");
    wait_for("ours replicates", SOON, || ours.bus.admin(|s, now| s.replicate(now, &victim, &NoKeys)).is_ok());
    wait_for("real nodes know", SOON, || {
        real.iter().all(|r| ask(r, "CLUSTER NODES").contains(&format!("slave {victim}")))
    });
    assert_eq!(*ours.asked.replicates.lock().unwrap(), Some(("127.0.0.1".into(), real[0].port)));
    let start = Instant::now();
    real[0].kill();
    wait_for("ours is primary", SOON, || !ours.is_replica());
    let took = start.elapsed();
    println!("elected {} ms after the kill", took.as_millis());
    assert!(took < Duration::from_secs(6), "{took:?}");
    let me = ours.id();
    wait_for("the real primaries follow", SOON, || {
        real[1..].iter().all(|r| {
            let nodes = ask(r, "CLUSTER NODES");
            nodes.lines().any(|l| l.starts_with(me.as_str()) && l.contains("master") && l.contains(" 0-"))
                && ask(r, "CLUSTER INFO").contains("cluster_state:ok")
        })
    });
    // The old one comes back as our replica.
    real[0].start_again();
    wait_for("the old primary follows ours", SOON, || {
        ask(&real[0], "CLUSTER NODES").lines().any(|l| l.contains("myself,slave") && l.contains(me.as_str()))
    });
}

#[test]
fn a_manual_failover_goes_both_ways() {
    let _light = light();
    let real = [real_node(), real_node(), real_node()];
    let ours = Ours::start("manual");
    form(&real, &[]);
    ours.meet(real[0].port);
    let primary = NodeId::parse(ask(&real[0], "CLUSTER MYID").as_bytes()).expect("an id");
    wait_for("ours replicates", SOON, || {
        ours.bus.admin(|s, now| s.replicate(now, &primary, &NoKeys)).is_ok()
    });
    wait_for("all know", SOON, || {
        real.iter().all(|r| ask(r, "CLUSTER NODES").contains(&format!("slave {primary}")))
            && ours.bus.read(|s| s.node_infos().iter().all(|n| n.connected))
    });
    ours.bus.admin(|s, now| s.failover(now, FailoverMode::Default)).expect("a working primary");
    let start = Instant::now();
    wait_for("the cluster hands over to ours", Duration::from_secs(5), || !ours.is_replica());
    println!("handed over in {} ms", start.elapsed().as_millis());
    wait_for("the real one follows", SOON, || ask(&real[0], "CLUSTER NODES").contains("myself,slave"));
    // And back. The real replica cannot synchronise with a node without data plane, so it is forced,
    // once its voters may vote about this shard again.
    wait_for("the real one takes over again", SOON, || {
        ask(&real[0], "CLUSTER FAILOVER FORCE");
        std::thread::park_timeout(Duration::from_millis(4200));
        ours.is_replica()
    });
    assert_eq!(ours.asked.pauses.load(Ordering::Relaxed), 0, "a forced failover pauses nobody");
}

#[test]
fn real_redis_reads_our_nodes_conf_and_the_other_way_round() {
    let _light = light();
    let mut real = [real_node(), real_node()];
    let mut ours = Ours::start("conf");
    form(&real, &[&ours]);
    let (id, epoch) = (ours.id(), ours.bus.read(ClusterState::current_epoch));
    wait_for("the real one has heard of the epoch", SOON, || real_epoch(&real[1]) >= epoch);
    ours.bus.admin(ClusterState::save_config);
    ask(&real[1], "CLUSTER SAVECONFIG");
    ours.stop();
    real[1].kill();
    // Ours as a real Redis reads it. Its own address stays ours, but it lists everybody.
    let ours_text = std::fs::read_to_string(ours.dir.join("nodes.conf")).expect("our nodes.conf");
    let dir = ours.dir.join("real");
    std::fs::create_dir_all(&dir).expect("a directory");
    std::fs::write(dir.join("nodes.conf"), &ours_text).expect("a copy");
    let reader = Launch::real().cluster().dir(&dir).start();
    assert_eq!(ask(&reader, "CLUSTER MYID"), id.as_str());
    let info = ask(&reader, "CLUSTER INFO");
    assert!(info.contains("cluster_slots_assigned:16384\r\ncluster_slots_ok"), "{info}");
    assert!(info.contains("cluster_known_nodes:3\r\n"), "{info}");
    drop(reader);
    // A real one's as ours reads it.
    let real_text = std::fs::read_to_string(real[1].dir().join("nodes.conf")).expect("its nodes.conf");
    let now = ours.asked.now();
    let rng = keystead::base::rng::Rng::new(1);
    let read = ClusterState::load(Config::default(), rng, now, &real_text).expect("a readable nodes.conf");
    assert_eq!((read.node_infos().len(), read.info().slots_assigned), (3, 16384));
    assert!(read.current_epoch() >= epoch);
}
