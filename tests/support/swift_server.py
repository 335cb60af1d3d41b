"""OpenStack Swift with its S3 API: a store that checks signatures, digests, checksums, part sizes and If-None-Match.

Swift runs as four processes on one disk with one replica, as in its "all in one" set-up. `python -m
support.swift_server DIRECTORY` starts it, prints the port of its endpoint, and stops it when standard input ends.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from export_worker.demo.processes import START_TIMEOUT_S, free_port
from support import secret_canaries
from support.store_process import store_process

ACCESS_KEY, SECRET_KEY = "test:tester", "swift-secret-key"
AWS_ENVIRONMENT = secret_canaries.AWS_ENVIRONMENT | {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
}
"""The variables in which boto3's credential chain finds these credentials, and none of this machine."""
STORES = ("account", "container", "object")
"""The servers behind the proxy; each has a ring file of its name."""

_COMMON = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {root}
devices = {root}/devices
mount_check = false
workers = 0
log_level = ERROR
"""
_STORE = """[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""
_PROXY = f"""[pipeline:main]
pipeline = catch_errors gatekeeper s3api tempauth slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
# On a busy machine the defaults count slow answers as errors, and then refuse all calls for a minute.
conn_timeout = 30
node_timeout = 60
error_suppression_limit = 1000000
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {SECRET_KEY} .admin
[filter:slo]
use = egg:swift#slo
"""
_HASHES = """[swift-hash]
swift_hash_path_suffix = tests
[storage-policy:0]
name = one
default = yes
"""


@contextmanager
def swift_server(directory: Path) -> Iterator[str]:
    """Yields the endpoint of an empty store in a directory. It stops with the block and with the test process."""
    _skip_where_it_cannot_run(directory)
    with store_process("swift_server", directory, ACCESS_KEY, SECRET_KEY) as url:
        yield url


def _skip_where_it_cannot_run(directory: Path) -> None:
    pytest.importorskip("swift", reason="Swift is not installed; it runs only on Linux (pip install '.[dev]')")
    library = "liberasurecode, which Swift needs and pyeclib's wheels contain, cannot be loaded"
    pytest.importorskip("pyeclib.ec_iface", reason=library, exc_type=ImportError)
    try:
        os.setxattr(directory, "user.swift", b"test")
    except OSError as error:
        pytest.skip(f"Swift needs extended attributes, which {directory} does not support ({error})")


def _configure(root: Path, ports: dict[str, int]) -> None:
    from swift.common.ring import RingBuilder  # type: ignore[import-untyped]

    (root / "devices" / "disk").mkdir(parents=True, exist_ok=True)
    (root / "swift.conf").write_text(_HASHES, encoding="ascii")
    for name, port in ports.items():
        own = _PROXY if name == "proxy" else _STORE.format(name=name)
        (root / f"{name}.conf").write_text(_COMMON.format(port=port, root=root) + own, encoding="ascii")
    for name in STORES:
        address = {"ip": "127.0.0.1", "port": ports[name]}
        device = {"id": 0, "region": 1, "zone": 1, "device": "disk", "weight": 1.0, "meta": "", **address}
        ring = RingBuilder(1, 1, 1)
        ring.add_dev(device | {"replication_ip": address["ip"], "replication_port": address["port"]})
        ring.rebalance()
        ring.get_ring().save(str(root / f"{name}.ring.gz"))


def _wait_for_port(port: int) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)
        else:
            return


def main() -> None:
    """Runs Swift until standard input ends."""
    root = Path(sys.argv[1])
    ports = {name: free_port() for name in (*STORES, "proxy")}
    _configure(root, ports)
    programs = Path(sys.executable).parent
    servers = [
        subprocess.Popen([programs / f"swift-{name}-server", root / f"{name}.conf"], stdout=subprocess.DEVNULL)
        for name in ports
    ]
    try:
        for port in ports.values():
            _wait_for_port(port)
        print(ports["proxy"], flush=True)  # noqa: T201  # the parent process reads it
        sys.stdin.read()
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()


if __name__ == "__main__":
    main()
