"""What client programs are tried against: a node, a cluster of six, a primary that three sentinels watch.

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
            follow = ["--replicaof", "127.0.0.1", str(self.nodes[0])] if len(self.nodes) > 1 else []
            rig.launch(self.nodes[-1], *follow)
        self.guards, first = [], first + 20000
        for _ in range(3):
            self.guards.append(free_port(first))
            first = self.guards[-1] + 1
            self.watch(self.guards[-1])
        wait_until("the sentinels know everybody", self.is_formed, 60)

    def watch(self, port):
        directory = os.path.join(self.rig.folder, str(port))
        os.makedirs(directory, exist_ok=True)
        conf = os.path.join(directory, "sentinel.conf")
        with open(conf, "w") as f:
            f.write(f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
                    f"sentinel monitor {PRIMARY_NAME} 127.0.0.1 {self.nodes[0]} 2\n"
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
