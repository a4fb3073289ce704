"""What hostile and clumsy clients do, again and again until they are stopped: for `scripts/bench hostile`."""

import itertools
import os
import resource
import socket
import time

from node import Client, ReplyError, encode


def connect(port):
    return socket.create_connection(("127.0.0.1", port), 30)


def send(stream, data):
    """Sends as much as the server takes; False once it has closed the connection."""
    try:
        stream.sendall(data)
        return True
    except OSError:
        return False


def slow_loris(port, _):
    """A byte at a time on 500 connections."""
    streams = [connect(port) for _ in range(500)]
    request = encode(["ECHO", "at last"])
    for byte in itertools.cycle(request):
        for stream in streams:
            stream.sendall(bytes([byte]))


def half_requests(port, _):
    """Requests that end in the middle, 200 connections at once."""
    halves = [b"*", b"*2\r\n$3\r\nGE", b"*2\r\n$3\r\nSET\r\n$1000000\r\nabc", b"SET k \"abc", b"\r"]
    for half in itertools.cycle(halves):
        streams = [connect(port) for _ in range(200)]
        for stream in streams:
            send(stream, half)
        for stream in streams:
            stream.close()


def huge_lengths(port, _):
    """Lengths that are declared and never come."""
    heads = [b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n", b"*1000000\r\n", b"*2\r\n$4\r\nECHO\r\n$500000000\r\nx",
             b"*2147483648\r\n", b"*1\r\n$-5\r\n"]
    waiting = []
    for head in itertools.cycle(heads):
        waiting.append(connect(port))
        send(waiting[-1], head)
        if len(waiting) > 300:
            waiting.pop(0).close()


def requests_without_reading(port, _):
    """Tiny requests as fast as they go, whose replies nobody reads."""
    requests = b"ECHO a-reply-that-takes-some-room-in-the-end\r\n" * 1000
    while True:
        stream = connect(port)
        stream.settimeout(0.5)
        while send(stream, requests):
            pass
        stream.close()


def requests_in_bulk(port, _):
    """Tiny requests as fast as they go, whose replies are read."""
    stream, requests = connect(port), b"PING\r\n" * 10_000
    while True:
        stream.sendall(requests)
        left = 7 * 10_000
        while left:
            left -= len(stream.recv(min(left, 1 << 20)))


def connections(port, _):
    """A hundred connections that come and go."""
    while True:
        streams = [connect(port) for _ in range(100)]
        for stream in streams:
            send(stream, b"PING\r\nSUBSCRIBE ch\r\nWATCH k\r\n")
        for stream in streams:
            stream.close()


def deaf_listener(port, _):
    """A subscriber that never reads what is published."""
    publisher, message = Client(port), "x" * (1 << 18)
    publisher("CONFIG", "SET", "client-output-buffer-limit", "pubsub 8mb 0 0")
    while True:
        listener = connect(port)
        send(listener, b"SUBSCRIBE ch\r\n")
        while publisher("PUBLISH", "ch", message) == 0:
            pass
        while publisher("PUBLISH", "ch", message):
            pass
        listener.close()


def deep_queue(port, _):
    """MULTI, and 200,000 commands behind it."""
    requests = b"SET k 0123456789012345678901234567890123456789\r\n" * 1000
    while True:
        stream = connect(port)
        send(stream, b"MULTI\r\n")
        for _ in range(200):
            if not send(stream, requests):
                break
            stream.recv(1 << 20)
        stream.close()


def deep_transactions(port, _):
    """MULTI, 20,000 commands, EXEC."""
    client = Client(port)
    queue = b"MULTI\r\n" + b"SET k 0123456789012345678901234567890123456789\r\n" * 20_000 + b"EXEC\r\n"
    while True:
        client.socket.sendall(queue)
        for _ in range(20_002):
            client.read()


def giant_rules(port, _):
    """Users with 20,000 rules."""
    words = ["ACL", "SETUSER", "u", "reset"]
    for i in range(5_000):
        words += [f"~key:{i}", f"&ch:{i}", f"+select|{i}", f"(~s:{i})"]
    client = Client(port, 120)
    while True:
        try:
            client(*words)
        except ReplyError:
            pass
        client("ACL", "DELUSER", "u")


def endless_lines(port, _):
    """Inline requests of 100 MB."""
    part = b"x" * (1 << 20)
    while True:
        stream = connect(port)
        for _ in range(100):
            if not send(stream, part):
                break
        stream.close()


def wrong_protocol(port, _):
    """HTTP and TLS where RESP is spoken."""
    for hello in itertools.cycle([b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01" + b"\0" * 512]):
        stream = connect(port)
        send(stream, hello)
        stream.close()


def stopped_handshakes(_, tls_port):
    """TLS that begins and goes no further."""
    waiting = []
    while True:
        waiting.append(connect(tls_port))
        send(waiting[-1], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(200))
        if len(waiting) > 300:
            waiting.pop(0).close()


ATTACKS = [slow_loris, half_requests, huge_lengths, requests_without_reading, requests_in_bulk, connections,
           deaf_listener, deep_queue, deep_transactions, giant_rules, endless_lines, wrong_protocol, stopped_handshakes]


def begin(attack, core, *ports):
    """Attacks from a process of its own, which leaves the core to the witness; its number."""
    child = os.fork()
    if child:
        return child
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        if not first_in_line(1):
            os.nice(19)
        if core is not None:
            os.sched_setaffinity(0, {core})
        attack(*ports)
    except Exception as e:
        print(f"{attack.__name__} ended: {e}", flush=True)
    finally:
        os._exit(0)


def first_in_line(priority):
    """Lets this process, and those that it starts, run before all that have less (SCHED_FIFO), where that is allowed."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        return True
    except OSError:
        return False


def witness(ports, seconds, core):
    """Microseconds of the answers to another client that asks one server after the other, in order, for each."""
    child_reads, child_writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            first_in_line(4)
            if core is not None:
                os.sched_setaffinity(0, {core})
            with os.fdopen(child_writes, "w") as out:
                for took in ask(ports, seconds):
                    print(*took, file=out)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(child_writes)
    with os.fdopen(child_reads) as answers:
        lines = [[float(word) for word in line.split()] for line in answers]
    os.waitpid(child, 0)
    if len(lines) != len(ports):
        raise SystemExit("the witness was not answered")
    return lines


def ask(ports, seconds):
    request, reply = encode(["GET", "witness"]), b"$1\r\nv\r\n"
    streams, took = [connect(port) for port in ports], [[] for _ in ports]
    for stream in streams:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.sendall(encode(["SET", "witness", "v"]))
        assert stream.recv(100) == b"+OK\r\n"
    clock = time.perf_counter_ns
    end = clock() + int(seconds * 1e9)
    while clock() < end:
        for stream, times in zip(streams, took):
            began = clock()
            stream.sendall(request)
            got = stream.recv(100)
            times.append((clock() - began) / 1000)
            assert got == reply, got
    return [sorted(times) for times in took]
