"""Fixtures of all tests: a real Redis and a real S3 server for each test process, and a search for leaked secrets.

Every secret that a test gives to the system is a canary. At the end of a test its printed and logged output is searched
for canaries. At the end of a test process all Redis values, all objects with their metadata, and all outputs of
commands and workers are searched.
"""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from arq.connections import ArqRedis
from hypothesis import settings

from export_worker.demo.processes import free_port, redis_binary
from export_worker.redis.client import close_redis, open_redis
from export_worker.s3.client import S3Client
from support import command_forks, golden_files, redis_choice, s3_server, secret_canaries
from support.first_collection import after_the_first
from support.paths import TESTS
from support.rclone_server import rclone_server
from support.redis_clock import MovableRedis, run_movable_redis
from support.seaweed_server import seaweed_server
from support.swift_server import swift_server

# The tests start hundreds of processes. Without bytecode on the disk, each of them compiles a thousand modules again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell starts a program in the background so that it ignores Ctrl-C, and `nohup` so that it ignores a hangup.
# The commands that the tests interrupt would inherit that. They do not inherit a handler.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

# The collection makes millions of objects and frees none of them; `pytest_collection_finish` enables it again.
gc.disable()

# Explains failed assertions of the conformance suite, which is no test file. Before any test imports it.
pytest.register_assert_rewrite("export_worker.platforms.conformance")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="Write the actual documents into tests/data/golden.")
    parser.addoption(
        "--redis", help="The Redis server to test with, or `embedded`. Default: from the PATH, else embedded."
    )


def pytest_configure(config: pytest.Config) -> None:
    golden_files.updating = bool(config.getoption("--update-golden"))
    if (server := config.getoption("--redis")) is not None:
        redis_choice.put_first(server)


def pytest_unconfigure() -> None:
    redis_choice.undo()


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collects in one process first, if the checkout is fresh and there are several processes."""
    with after_the_first() if hasattr(session.config, "workerinput") else nullcontext():
        return (yield)


WAITING = ("e2e", "integration")
"""The folders whose tests start workers and servers, and wait for them. All other tests compute."""
LONGEST = (
    "e2e/test_crash_points.py",
    "integration/transfer/test_swift.py",
    "e2e/test_growingio_rest.py",
    "e2e/test_sensorsdata.py",
    "e2e/test_thinkingdata.py",
    "e2e/test_demo.py",
    "e2e/test_resume.py",
)
"""The files that take longest. They start first, so that the last files of a run are short ones."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spreads the files of each folder over the run, so that some tests compute while others wait for a worker."""
    groups: dict[str, dict[Path, int]] = {}
    for item in items:
        group = groups.setdefault(next((name for name in WAITING if name in item.path.parts), ""), {})
        group.setdefault(item.path, len(group))
    starts = {path: place / len(group) for group in groups.values() for path, place in group.items()}
    starts |= {TESTS / name: place - len(LONGEST) for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: starts[item.path])


def pytest_collection_finish() -> None:
    """Takes all modules and tests out of the garbage collector. It examined them again and again, and frees none."""
    gc.enable()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fails a passed test that printed or logged a secret. A worker in the test's process can log one."""
    report = yield
    if report.passed:
        try:
            for title, text in report.sections:
                secret_canaries.check(title, text.encode())
        except AssertionError as error:
            report.outcome, report.longrepr = "failed", str(error)
    return report


# A slow machine is not a defect. Benchmarks measure durations; tests do not.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory for the output of all commands and workers, which is searched for secrets at the end."""
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Redis for this test process."""
    port, directory = free_port(), tmp_path_factory.mktemp("redis")
    command = [redis_binary(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory)]
    command += ["--appendonly", "yes", "--appendfsync", "no", "--save", "", "--maxmemory-policy", "noeviction"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        url = f"redis://127.0.0.1:{port}/0"
        try:
            _wait_until_answering(url)
            yield url
            secret_canaries.search_redis(url)
        finally:
            server.terminate()


@pytest.fixture
def movable_redis(tmp_path: Path) -> Iterator[MovableRedis]:
    """A real Redis for one test, whose clock the test can set."""
    with run_movable_redis(tmp_path) as found:
        yield found


def _wait_until_answering(url: str) -> None:
    deadline = time.monotonic() + 20
    with closing(redis.Redis.from_url(url)) as client:
        while True:
            try:
                client.ping()
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """The URL of a real S3 server for this test process. boto3's credential chain finds the canaries."""
    with s3_server.s3_server() as url, secret_canaries.aws_credentials():
        yield url
        secret_canaries.search_s3(url)


@pytest.fixture(scope="session")
def seaweed_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of SeaweedFS for this test process. boto3's credential chain finds the canaries."""
    with seaweed_server(tmp_path_factory.mktemp("seaweedfs")) as url, secret_canaries.aws_credentials():
        yield url
        secret_canaries.search_s3(url)


@pytest.fixture(scope="session")
def rclone_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of rclone's S3 server for this test process. boto3's credential chain finds the canaries."""
    with rclone_server(tmp_path_factory.mktemp("rclone")) as url, secret_canaries.aws_credentials():
        yield url
        secret_canaries.search_s3(url)


@pytest.fixture(scope="session")
def swift_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of Swift for this test process. Its user has the credentials of `swift_server`."""
    with swift_server(tmp_path_factory.mktemp("swift")) as url:
        yield url


@pytest.fixture(scope="session", autouse=True)
def _forks_end() -> Iterator[None]:
    yield
    command_forks.SERVER.stop()
    s3_server.FORKS.stop()


@pytest.fixture(scope="session", autouse=True)
def _no_secret_in_outputs(outputs: Path) -> Iterator[None]:
    yield
    secret_canaries.search_files(outputs)


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses."""
    return f"t{uuid4().hex[:10]}"


@pytest.fixture(scope="session")
def _s3_client(s3_url: str) -> Iterator[S3Client]:
    with s3_server.s3_client(s3_url) as client:
        yield client


@pytest.fixture
def bucket(_s3_client: S3Client) -> str:
    """A bucket that no other test uses."""
    return s3_server.new_bucket(_s3_client)


@pytest.fixture
async def arq_redis(redis_url: str) -> AsyncIterator[ArqRedis]:
    """A Redis client with the worker's settings."""
    client = open_redis(redis_url)
    yield client
    await close_redis(client)
