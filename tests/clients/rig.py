"""What client programs are tried against: a node, a cluster of six, a primary that three sentinels watch, and the three
of them once more over TLS with certificates of clients and with users.

    KEYSTEAD_SERVER   the server (the release binary unless given)
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))
from node import KEYSTEAD, ROOT, TARGET, Client, ReplyError, answers, free_port, start, stop, tool, wait_until  # noqa: E402

PROGRAM = os.environ.get("KEYSTEAD_SERVER", KEYSTEAD)
NODE_TIMEOUT_MS = 2000
DOWN_AFTER_MS = 1000
PRIMARY_NAME = "mymaster"


class Rig:
    """Processes on free ports, each in a folder of its own; all end with the rig."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="clients-", dir=TARGET)
        self.processes = {}

    def launch(self, port, *args):
        self.processes[port] = start(PROGRAM, port, os.path.join(self.folder, str(port)),
                                     ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0", *args])

    def node(self, *args):
        """Starts a node that stands alone; its port."""
        port = free_port(18000)
        self.launch(port, *args)
        return port

    def kill(self, port):
        stop(self.processes[port])

    def is_dead(self, port):
        return self.processes[port].poll() is not None

    def close(self, keep):
        for process in self.processes.values():
            stop(process)
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)


def last_words(done):
    """How a program ended, in one line: what summaries show."""
    return f"exit code {done.returncode}: " + " | ".join((done.stdout + done.stderr).splitlines()[-5:])


class Cluster:
    """Three primaries with a replica each."""

    ARGS = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS)]

    def __init__(self, rig):
        self.rig, self.ports, first = rig, [], 18100
        while len(self.ports) < 6:
            port = free_port(first, bus=True)
            rig.launch(port, *self.ARGS)
            self.ports.append(port)
            first = port + 1
        made = subprocess.run([tool("redis-cli"), "--cluster", "create", *[f"127.0.0.1:{p}" for p in self.ports],
                               "--cluster-replicas", "1", "--cluster-yes"],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert made.returncode == 0, last_words(made)
        wait_until("the cluster is ok", self.is_healthy, 60)

    def is_healthy(self):
        try:
            return self.is_whole()
        except ReplyError:  # a replica loads
            return False

    def is_whole(self):
        infos = [Client(p)("CLUSTER", "INFO") for p in self.ports]
        linked = sum(Client(p).info().get("master_link_status") == "up" for p in self.ports)
        known = all(len(s) == 4 for p in self.ports for s in Client(p)("CLUSTER", "SLOTS"))
        return all("cluster_state:ok" in i for i in infos) and linked == 3 and known

    def heal(self):
        """Starts again what a client has killed."""
        for port in filter(self.rig.is_dead, self.ports):
            self.rig.launch(port, *self.ARGS)
            wait_until("who was killed follows", lambda: Client(port).info().get("master_link_status") == "up", 60)
        wait_until("the cluster is ok", self.is_healthy, 60)

    def told(self):
        return [{"port": p, "pid": self.rig.processes[p].pid} for p in self.ports]


class Watched:
    """A primary and two replicas that three sentinels watch."""

    def __init__(self, rig):
        self.rig = rig
        self.nodes, first = [], 19000
        for _ in range(3):
            self.nodes.append(free_port(first))
            first = self.nodes[-1] + 1
            follow = ["--replicaof", "127.0.0.1", str(self.known_as(self.nodes[0]))] if len(self.nodes) > 1 else []
            self.launch(self.nodes[-1], *follow)
        self.guards, first = [], first + 20000
        for _ in range(3):
            self.guards.append(free_port(first))
            first = self.guards[-1] + 1
            self.watch(self.guards[-1])
        wait_until("the sentinels know everybody", self.is_formed, 60)

    def launch(self, port, *args):
        self.rig.launch(port, *args)

    def known_as(self, port):
        """The port under which others know a node."""
        return port

    def lines(self, port):
        """What else the configuration of a sentinel says."""
        return ""

    def watch(self, port):
        directory = os.path.join(self.rig.folder, str(port))
        os.makedirs(directory, exist_ok=True)
        conf = os.path.join(directory, "sentinel.conf")
        with open(conf, "w") as f:
            f.write(f"port {port}\nbind 127.0.0.1\ndir {directory}\n{self.lines(port)}"
                    f"sentinel monitor {PRIMARY_NAME} 127.0.0.1 {self.known_as(self.nodes[0])} 2\n"
                    f"sentinel down-after-milliseconds {PRIMARY_NAME} {DOWN_AFTER_MS}\n"
                    f"sentinel failover-timeout {PRIMARY_NAME} 20000\n")
        with open(os.path.join(directory, "sentinel.log"), "ab") as log:
            self.rig.processes[port] = subprocess.Popen([PROGRAM, conf, "--sentinel"], stdin=subprocess.DEVNULL,
                                                        stdout=log, stderr=log)
        wait_until("the sentinel answers", lambda: answers(port))

    def primary(self):
        """Its port, as the first sentinel knows it."""
        return int(Client(self.guards[0])("SENTINEL", "GET-MASTER-ADDR-BY-NAME", PRIMARY_NAME)[1])

    def is_formed(self):
        def rows(guard, what):
            return [dict(zip(r[::2], r[1::2])) for r in Client(guard)("SENTINEL", what, PRIMARY_NAME)]
        for guard in self.guards:
            replicas, others, primary = rows(guard, "REPLICAS"), rows(guard, "SENTINELS"), rows_of_one(guard)
            if (len(replicas) != 2 or len(others) != 2 or primary["flags"] != "master"
                    or any(r["flags"] != "slave" or r["master-link-status"] != "ok" for r in replicas)
                    or any(s["flags"] != "sentinel" for s in others) or int(primary["port"]) != self.primary()):
                return False
        return True

    def heal(self):
        """Starts again what a client has killed."""
        for port in filter(self.rig.is_dead, self.nodes):
            self.rig.launch(port, "--replicaof", "127.0.0.1", str(self.primary()))
        wait_until("the sentinels know everybody", self.is_formed, 60)

    def told(self):
        nodes = [{"port": p, "pid": self.rig.processes[p].pid} for p in self.nodes]
        return {"name": PRIMARY_NAME, "nodes": nodes, "guards": self.guards}


class Tls:
    """Certificates, and what nodes and sentinels say to speak TLS with everybody."""

    def __init__(self, rig):
        self.folder, self.ports = os.path.join(rig.folder, "certificates"), {}
        subprocess.run([os.path.join(ROOT, "scripts", "make-certs"), self.folder], check=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def port(self, port, bus=False):
        """Where the node on this plain port speaks TLS; chosen when it is first asked for."""
        if port not in self.ports:
            taken = max([port, *self.ports.values()])
            self.ports[port] = free_port(taken + 100, bus)
        return self.ports[port]

    def directives(self, port, bus=False):
        return {"tls-port": self.port(port, bus), "tls-cert-file": self.path("redis.crt"),
                "tls-key-file": self.path("redis.key"), "tls-ca-cert-file": self.path("ca.crt"),
                "tls-replication": "yes"}

    def arguments(self, port, bus=False):
        directives = {**self.directives(port, bus), "tls-cluster": "yes"}
        return [word for name, value in directives.items() for word in (f"--{name}", str(value))]


# Users: of programs, of replicas and sentinels at nodes, and of whoever asks a sentinel. What they may do is what the
# clients' and Sentinel's own pages ask for.
PASSWORD = "a secret"
USERS = {
    "app": ["~app:*", "~{app}*", "&*", "+@all", "-@admin", "+role"],
    "whole": ["allkeys", "allchannels", "+@all"],
    "replica": ["+psync", "+replconf", "+ping"],
    "watcher": ["allchannels", "+multi", "+slaveof", "+ping", "+exec", "+subscribe", "+config|rewrite", "+role",
                "+publish", "+info", "+client|setname", "+client|kill", "+script|kill"],
}
GUARD_USER = ["&*", "-@all", "+auth", "+client|setname", "+client|setinfo", "+hello", "+ping", "+info", "+role", "+command",
              "+subscribe", "+psubscribe", "+unsubscribe", "+punsubscribe", "+publish", "+sentinel|myid",
              "+sentinel|get-master-addr-by-name", "+sentinel|is-master-down-by-addr", "+sentinel|master",
              "+sentinel|masters", "+sentinel|replicas", "+sentinel|slaves", "+sentinel|sentinels"]


def make_users(port):
    client = Client(port)
    for name, rules in USERS.items():
        client("ACL", "SETUSER", name, "on", f">{PASSWORD}", *rules)


class SecuredWatched(Watched):
    """The same over TLS. The rig itself looks at them on plain ports."""

    def __init__(self, rig, tls):
        self.tls = tls
        super().__init__(rig)

    def launch(self, port, *args):
        super().launch(port, "--masteruser", "replica", "--masterauth", PASSWORD, *args, *self.tls.arguments(port))
        make_users(port)

    def known_as(self, port):
        return self.tls.port(port)

    def lines(self, port):
        said = "".join(f"{name} {value}\n" for name, value in self.tls.directives(port).items())
        return (f"{said}user guard on \">{PASSWORD}\" {' '.join(GUARD_USER)}\n"
                f"sentinel sentinel-user guard\nsentinel sentinel-pass \"{PASSWORD}\"\n")

    def watch(self, port):
        super().watch(port)
        client = Client(port)
        client("SENTINEL", "SET", PRIMARY_NAME, "auth-user", "watcher", "auth-pass", PASSWORD)


class Secured:
    """A node, a cluster of three primaries, and a watched primary, over TLS with certificates of clients and users."""

    def __init__(self, rig):
        self.tls = tls = Tls(rig)
        self.node = free_port(18050)
        rig.launch(self.node, *tls.arguments(self.node))
        make_users(self.node)
        self.cluster, first = [], 18300
        for _ in range(3):
            port = free_port(first)
            rig.launch(port, "--cluster-enabled", "yes", *tls.arguments(port, bus=True))
            make_users(port)
            self.cluster.append(port)
            first = port + 1
        made = subprocess.run([tool("redis-cli"), "--cluster", "create",
                               *[f"127.0.0.1:{tls.port(p)}" for p in self.cluster], "--cluster-yes", "--tls",
                               "--cacert", tls.path("ca.crt"), "--cert", tls.path("client.crt"), "--key",
                               tls.path("client.key")], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert made.returncode == 0, last_words(made)
        wait_until("the cluster is ok", lambda: all(
            "cluster_state:ok" in Client(p)("CLUSTER", "INFO") for p in self.cluster), 60)
        self.watched = SecuredWatched(rig, tls)

    def heal(self):
        """All is as a client expects it, after what another one has done."""
        self.watched.heal()
        for port in (self.node, *self.cluster):
            Client(port)("FLUSHALL")

    def told(self):
        port = self.tls.port
        return {"folder": self.tls.folder, "password": PASSWORD, "node": port(self.node),
                "cluster": [port(p) for p in self.cluster], "name": PRIMARY_NAME,
                "guards": [port(p) for p in self.watched.guards], "admin": self.watched.guards[0]}


def rows_of_one(guard):
    row = Client(guard)("SENTINEL", "MASTER", PRIMARY_NAME)
    return dict(zip(row[::2], row[1::2]))


class Checks:
    """Runs named checks and prints what `cargo test` would: a line each, and the counts."""

    def __init__(self, subject):
        self.subject, self.passed, self.failed = subject, 0, 0

    def run(self, name, check, *args):
        try:
            result = check(*args)
        except BaseException as e:  # wait_until exits
            self.failed += 1
            print(f"test {self.subject}: {name} ... FAILED", flush=True)
            traceback.print_exception(e, file=sys.stdout)
            return None
        self.passed += 1
        print(f"test {self.subject}: {name} ... ok", flush=True)
        return result

    def end(self):
        word = "ok" if self.failed == 0 else "FAILED"
        print(f"\ntest result: {word}. {self.passed} passed; {self.failed} failed", flush=True)
        return self.failed == 0


def told(**parts):
    """What a program is told of the rig, as it stands in the variable RIG."""
    return json.dumps(parts)
