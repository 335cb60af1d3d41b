"""The producer side as a package for services: typed examples run, the import is fast, public names are typed."""

import resource
import subprocess
import sys
from pathlib import Path

import export_producers
from support.paths import TESTS

EXAMPLES = TESTS / "typing" / "producers.py"
IMPORT_S_MAX = 0.150
"""Processor time in addition to that of an empty interpreter. Unlike elapsed time, it does not grow with the load."""


def test_type_checked_examples_run(redis_url: str, namespace: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES), redis_url, namespace],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["queued", "running", "transferring", "succeeded", "queued"]


def test_import_is_fast_and_loads_no_client() -> None:
    code = "import export_producers, sys; print(*sorted(m for m in sys.modules if '.' not in m))"
    base_s = min(_cpu_s("pass") for _ in range(3))
    assert min(_cpu_s("import export_producers") for _ in range(3)) - base_s < IMPORT_S_MAX
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert loaded & {"redis", "arq", "pydantic", "asyncio", "boto3", "aiohttp", "click", "rich"} == set()


def _cpu_s(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_every_public_name_exists_and_is_typed() -> None:
    stub = Path(export_producers.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    typed = {line.rpartition(" ")[2] for line in stub.splitlines()}
    assert typed == set(dir(export_producers))
    assert all(getattr(export_producers, name) is not None for name in typed)
