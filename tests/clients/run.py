"""Client libraries and programs that live on Redis, each against the server under test.

    python tests/clients/run.py NAME...

NAME is a client (ioredis, node-redis, redis-rs, go-redis) or a program (bullmq). Each is started with the variable RIG, which
tells the ports and processes that it may use, and prints one line a test and the counts. What it kills is started
again before the next one.

    KEYSTEAD_SERVER   the server (the release binary unless given)
    NODE              the node that runs the JavaScript (node)
"""

import os
import subprocess
import sys

from rig import TARGET, Client, Cluster, Rig, Secured, Watched, told

HERE = os.path.dirname(os.path.abspath(__file__))
NODE = os.environ.get("NODE", "node")
# What node needs is installed here: see scripts/test.
MODULES = os.path.join(TARGET, "node", "node_modules")
RUST_TARGET = os.path.join(TARGET, "clients-rust")
GO_CHECKS = os.path.join(TARGET, "clients-go")
# Where Debian's packages put the sources of libraries.
GO_LIBRARIES = "/usr/share/gocode"
CLIENTS = ("ioredis", "node-redis", "redis-rs", "go-redis")


def command(name):
    if name == "redis-rs":
        return [os.path.join(RUST_TARGET, "debug", "keystead-client-checks")]
    if name == "go-redis":
        return [GO_CHECKS]
    return [NODE, os.path.join(HERE, "node", f"{name}.js")]


def build_rust():
    return subprocess.call(["cargo", "build", "--quiet", "--locked", "--target-dir", RUST_TARGET,
                            "--manifest-path", os.path.join(HERE, "rust", "Cargo.toml")]) == 0


def build_go():
    env = dict(os.environ, GO111MODULE="off", GOPATH=GO_LIBRARIES, GOFLAGS="")
    return subprocess.call(["go", "build", "-o", GO_CHECKS, os.path.join(HERE, "go", "main.go")], env=env) == 0


def main():
    names = [name for name in sys.argv[1:] if not name.startswith("-")] or list(CLIENTS)
    filters = [arg[1:] for arg in sys.argv[1:] if arg.startswith("-")]
    if "redis-rs" in names and not build_rust():
        sys.exit("the checks with the redis crate cannot be built")
    if "go-redis" in names and not build_go():
        sys.exit("the checks with go-redis cannot be built")
    rig, failed = Rig(), False
    try:
        node, cluster = rig.node(), Cluster(rig)
        watched, secured = (Watched(rig), Secured(rig)) if set(names) & set(CLIENTS) else (None, None)
        for name in names:
            Client(node)("FLUSHALL")
            parts = {"node": node, "cluster": cluster.told(), "watched": watched and watched.told(),
                     "secured": secured and secured.told()}
            env = dict(os.environ, NODE_PATH=MODULES, RIG=told(**parts))
            failed |= subprocess.call([*command(name), *filters], env=env, stdin=subprocess.DEVNULL) != 0
            cluster.heal()
            if watched:
                watched.heal()
                secured.heal()
    finally:
        rig.close(keep=failed)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
