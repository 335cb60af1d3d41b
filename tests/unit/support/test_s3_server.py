"""The S3 servers of the tests are forked from one process, but share nothing, and none of them is left behind."""

import socket
from typing import Any

from support import s3_server
from support.worker_site import wait_until


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def buckets(endpoint_url: str, *new: str) -> list[str]:
    """Creates buckets; returns the names of all."""
    with s3_server.s3_client(endpoint_url) as built:
        client: Any = built
        for name in new:
            client.create_bucket(Bucket=name)
        return [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]


def test_servers_share_no_bucket_and_end_with_their_block() -> None:
    with s3_server.s3_credentials(), s3_server.s3_server() as one, s3_server.s3_server() as other:
        assert buckets(one, "only-here") == ["only-here"]
        assert buckets(other) == []
    wait_until(lambda: not listens(int(one.rpartition(":")[2])), 20, "the end of the server")


def test_servers_end_with_the_process_that_forked_them() -> None:
    forks = s3_server.Forks()
    port, _ = forks.start()
    assert listens(port)
    forks.stop()
    wait_until(lambda: not listens(port), 20, "the end of the server")
