"""What clients cost others: idle, waiting and hostile ones."""

import os
import resource
import shutil
import signal
import socket
import statistics
import tempfile
import time

from node import TARGET, encode, stop, wait_until
from . import attacks
from .runs import in_turn, microseconds, spread
from .server import Server

WAITING = 5000


def connect_many(server, number):
    """Connections that ask for nothing yet."""
    connections = []
    for _ in range(number):
        connections.append(socket.create_connection(("127.0.0.1", server.port), 60))
    wait_until("the server has them all", lambda: int(server.client.info()["connected_clients"]) > number)
    return connections


def block(server, connections, timeout):
    for i, connection in enumerate(connections):
        connection.sendall(encode((b"BLPOP", b"nothing:%d" % i, timeout)))
    wait_until("they wait", lambda: int(server.client.info()["blocked_clients"]) == len(connections))


def waiting(servers, options):
    """GET at one depth with nobody, idle and blocked connections beside it, interleaved."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    operations = 200_000 // options.divide
    beside = {
        "nobody": lambda server: [],
        f"{WAITING} idle, 1 blocked": lambda server: one_of(server, connect_many(server, WAITING + 1)),
        f"{WAITING} blocked": lambda server: all_of(server, connect_many(server, WAITING)),
    }

    def one_of(server, connections):
        block(server, connections[:1], 0)
        return connections

    def all_of(server, connections):
        # Each with a deadline of its own.
        block(server, connections, 600)
        return connections
    samples = {(s.name, what): [] for s in servers for what in beside}
    for server in servers:
        server.fill_strings(100_000)
    for rep in range(options.reps):
        for server in in_turn(servers, rep):
            for what in in_turn(beside, rep):
                connections = beside[what](server)
                samples[server.name, what].append(
                    microseconds(server, "get", operations, 1, 100_000, options.client_core))
                for connection in connections:
                    connection.close()
                wait_until("they are gone", lambda: int(server.client.info()["connected_clients"]) < 60)
    print(f"\nGET, P 1, CPU in µs/op (min med max), and against nobody beside it")
    for server in servers:
        alone = statistics.median(samples[server.name, "nobody"])
        for what in beside:
            values = samples[server.name, what]
            print(f"{server.name:<10}{what:<24}{spread(values):<28}{(statistics.median(values) / alone - 1) * 100:+.1f} %", flush=True)


def hostile(servers, options):
    """p99.9 of a witness alone and beside each attack, interleaved: servers on one core, clients on the other. Where the
    system lets it, the witness goes before the servers and they before the attacker (SCHED_FIFO), so that it waits for
    the server and not for a core; what it waits for an idle server of the same program in the same moments is shown
    behind, as the part that is none of the attacked server's."""
    seconds = 2 if options.divide > 1 else 5
    core = options.client_core
    folder = tempfile.mkdtemp(prefix="bench-", dir=TARGET)
    idle = {s.name: Server("idle-" + s.name, s.program, folder, ["--save", "", "--io-threads", "1"], s.core)
            for s in servers}
    for server in servers:
        server.goes_first(2, core)
        idle[server.name].goes_first(3, core)
        server.client("CONFIG", "SET", "client-output-buffer-limit", "normal 64mb 0 0")

    def secure_port(server):
        return int(server.address[1])

    def measure(server, attack):
        child = attack and attacks.begin(attack, core, server.port, secure_port(server))
        try:
            if attack:
                time.sleep(0.3)  # it is under way
            took = attacks.witness([server.port, idle[server.name].port], seconds, core)
            return [times[int(len(times) * 0.999)] for times in took]
        finally:
            if child:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            server.client("CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 8mb 60")
            server.client("FLUSHALL")
            server.settle()
    kinds = [None, *(a for a in attacks.ATTACKS if options.wants(a.__name__))]
    samples = {(s.name, kind): [] for s in servers for kind in kinds}
    try:
        for rep in range(options.reps):
            for kind in kinds:
                for server in in_turn(servers, rep):
                    samples[server.name, kind].append(measure(server, kind))
    finally:
        for server in idle.values():
            stop(server.process)
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{'p99.9 of a GET in µs':<26}{'redis':>24}{'idle':>7}{'':>8}{'keystead':>24}{'idle':>7}")
    alone = {s.name: statistics.median(own for own, _ in samples[s.name, None]) for s in servers}
    for kind in kinds:
        line = f"{kind.__name__ if kind else 'alone':<26}"
        for server in servers:
            values = [own for own, _ in samples[server.name, kind]]
            beside = statistics.median(other for _, other in samples[server.name, kind])
            line += f"{spread(values, 0):>24}{beside:>7.0f}{statistics.median(values) / alone[server.name]:7.2f}x"
        print(line, flush=True)
