"""What the scripts share: starting a server, and a small client for it. Python 3 alone."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
KEYSTEAD = os.path.join(TARGET, "release", "keystead-server")


def build():
    """The release binary, built when it is not there or older than its sources."""
    if shutil.which("cargo") is None:
        sys.exit("cargo is missing: install Rust from https://rustup.rs")
    if subprocess.call(["cargo", "build", "--release", "--quiet"], cwd=ROOT) != 0:
        sys.exit("the build failed")
    return KEYSTEAD


def tool(name):
    """The path of one of Redis's programs, which Debian has in redis-tools and redis-server."""
    path = shutil.which(name)
    if path is None:
        sys.exit(f"{name} is missing: apt-get install redis-server redis-tools")
    return path


def free_port(first=17000, bus=False):
    """The first port from `first` on that is free, with the port 10,000 above it if `bus` is set."""
    def free(port):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
                return True
            except OSError:
                return False
    port = first
    while not (free(port) and (not bus or free(port + 10000))):
        port += 1
    return port


class ReplyError(Exception):
    """An error reply."""


class Client:
    """A blocking RESP2 client."""

    def __init__(self, port, timeout=30):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.file = self.socket.makefile("rb")

    def __call__(self, *words):
        self.socket.sendall(encode(words))
        return self.read()

    def read(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            raise ReplyError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2].decode(errors="replace")
        return None if rest == b"-1" else [self.read() for _ in range(int(rest))]

    def info(self):
        """INFO as a dictionary of texts."""
        pairs = (line.split(":", 1) for line in self("INFO").splitlines() if ":" in line)
        return dict(pairs)

    def close(self):
        self.file.close()
        self.socket.close()


def encode(words):
    out = [b"*%d\r\n" % len(words)]
    for word in words:
        word = word if isinstance(word, bytes) else str(word).encode()
        out.append(b"$%d\r\n%s\r\n" % (len(word), word))
    return b"".join(out)


def wait_until(what, condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def answers(port):
    try:
        client = Client(port, 1)
        client("PING")
        client.close()
        return True
    except ReplyError as e:
        return not str(e).startswith("LOADING")
    except OSError:
        return False


def start(program, port, directory, args=(), core=None):
    """Starts a server, on one core if `core` is given, and returns its process once it answers."""
    os.makedirs(directory, exist_ok=True)
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", directory, *args]
    pin = None if core is None else (lambda: os.sched_setaffinity(0, {core}))
    with open(os.path.join(directory, "server.log"), "ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=pin, start_new_session=True)

    def ready():
        if process.poll() is not None:
            sys.exit(f"{program} ended at its start; see {directory}/server.log")
        return answers(port)
    wait_until(f"{program} answers on port {port}", ready)
    return process


def stop(process):
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
        process.wait()


def born(pid):
    """When process `pid` started, in ticks since boot: tells it from a later one of that number. None when it has ended,
    whether or not somebody has asked how."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def alive(process):
    """Whether a process runs that was noted with its `pid` and when it was `born`."""
    return process is not None and born(process["pid"]) == process["born"]
