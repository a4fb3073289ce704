"""A server that is measured: Keystead, a real redis-server, or an earlier build."""

import os
import re
import time

from node import Client, encode, free_port, start

TICK = os.sysconf("SC_CLK_TCK")


class Server:
    def __init__(self, name, program, folder, args, core, certificates=None):
        self.name, self.folder, self.program, self.core = name, folder, program, core
        self.port = free_port()
        # What redis-benchmark is told: the port, and how to speak on it.
        self.address = ["-p", str(self.port)]
        if certificates:
            def path(name):
                return os.path.join(certificates, name)
            secure = free_port(self.port + 1)
            args = [*args, "--tls-port", str(secure), "--tls-cert-file", path("server.crt"),
                    "--tls-key-file", path("server.key"), "--tls-ca-cert-file", path("ca.crt")]
            self.address = ["-p", str(secure), "--tls", "--cacert", path("ca.crt"),
                            "--cert", path("client.crt"), "--key", path("client.key")]
        self.args = args
        self.process = start(program, self.port, os.path.join(folder, name), args, core)
        self.client = Client(self.port, 600)

    def goes_first(self, priority, other_core):
        """Lets the thread that serves clients run before whatever else wants its core, where that is allowed, and the
        others on the other core, as they would on a machine that is not full."""
        tasks = f"/proc/{self.process.pid}/task"
        names = {}
        for thread in os.listdir(tasks):
            with open(os.path.join(tasks, thread, "comm")) as f:
                names[int(thread)] = f.read()
        serving = [t for t, name in names.items() if name.startswith("worker-")] or [self.process.pid]
        for thread in names:
            try:
                os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(priority))
                if other_core is not None and thread not in serving:
                    os.sched_setaffinity(thread, {other_core})
            except OSError:
                return

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def settle(self):
        """Waits until the server works no more: Keystead frees in the background what Redis frees at once."""
        before, now = None, self.cpu_seconds()
        while before is None or now - before > 0.02:
            time.sleep(0.5)
            before, now = now, self.cpu_seconds()

    def resident(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) * 1024

    def memory_with_children(self):
        """Proportional bytes of the process and of what it forked: shared pages count once."""
        pids = [str(self.process.pid)]
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            try:
                with open(f"/proc/{self.process.pid}/task/{task}/children") as f:
                    pids += f.read().split()
            except OSError:
                pass
        total = 0
        for pid in pids:
            try:
                with open(f"/proc/{pid}/smaps_rollup") as f:
                    total += int(re.search(r"\nPss:\s+(\d+)", f.read()).group(1)) * 1024
            except OSError:
                pass
        return total

    def fill(self, commands):
        """Sends (words, ...) of an iterator as one pipeline, reading replies as they come."""
        sock = self.client.socket
        batch, pending = [], 0
        for words in commands:
            batch.append(encode(words))
            if len(batch) == 2000:
                sock.sendall(b"".join(batch))
                pending += len(batch)
                batch = []
                if pending >= 10_000:
                    self.drain(pending)
                    pending = 0
        sock.sendall(b"".join(batch))
        self.drain(pending + len(batch))

    def drain(self, replies):
        for _ in range(replies):
            self.client.file.readline()

    def fill_strings(self, keys, name=b"key", value=b"x" * 32):
        """`keys` strings named as redis-benchmark names them: 16 bytes for `key`."""
        head = b"*3\r\n$3\r\nSET\r\n$%d\r\n%s:" % (len(name) + 13, name)
        tail = b"\r\n$%d\r\n%s\r\n" % (len(value), value)
        step = 5000
        for first in range(0, keys, step):
            last = min(first + step, keys)
            self.client.socket.sendall(b"".join(head + b"%012d" % i + tail for i in range(first, last)))
            self.drain(last - first)

    def fill_for(self, tests, keys):
        """What these tests of redis-benchmark read and overwrite; nothing else."""
        self.client("FLUSHALL")
        names = {name for name, _ in tests}
        if names & {"get", "set"}:
            self.fill_strings(keys)
        if "incr" in names:
            self.fill_strings(keys, b"counter", b"1")
