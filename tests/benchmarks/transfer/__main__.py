"""The engine beside its peers: the same source and sink, in turn, several runs. `make bench-transfer`.

Nothing of a peer comes into the project: what pip gives lives in a virtual environment of the bench's own, `aws` and
`rclone` are taken from the PATH, and what is not there is left out and named. The source sends by sendfile, the sink
discards without copying and answers the checksum that it was told; how long the floor takes, a bare copy, shows how
much faster than any mover they are.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.transfer.movers import DESIGNS, MOVERS, Order
from benchmarks.transfer.servers import running
from support.certificates import certificate

HERE = Path(__file__).parent
PEERS = {"aioboto3": "aioboto3", "smart_open": "smart_open[s3]", "obstore": "obstore"}
"""Not of the project: each in an environment of its own, since their versions of botocore exclude each other."""
PROGRAMS = {"aws-cli": "aws", "rclone": "rclone"}
MOVER_S = 300
"""Longer is a hang."""
GIB = 2**30


@dataclass(frozen=True)
class Course:
    """What is moved.

    Args:
        framing: How the source says where the file ends.
        tls: On both sides.
    """

    name: str
    bytes: int
    files: int = 1
    at_once: int = 1
    framing: str = "length"
    tls: bool = False


COURSES = {
    "known": Course("one file, known length", GIB),
    "unknown": Course("one file, unknown length", GIB, framing="chunked"),
    "eight": Course("eight files at once", GIB // 8, files=8, at_once=8),
    "tls": Course("one file, TLS on both sides", GIB, tls=True),
    "eight-unknown": Course("eight files at once, unknown length", GIB // 8, files=8, at_once=8, framing="chunked"),
    "eight-tls": Course("eight files at once, TLS on both sides", GIB // 8, files=8, at_once=8, tls=True),
    "unknown-tls": Course("one file, unknown length, TLS on both sides", GIB, framing="chunked", tls=True),
    "small": Course("500 files of 100 KiB, 16 at once", 100 * 1024, files=500, at_once=16),
}
USUAL = ["known", "unknown", "eight", "tls", "small"]


def pythons(folder: Path, wanted: list[str], console: Console) -> dict[str, str]:
    """Where each mover runs; those that cannot be had are left out."""
    found = {}
    for name in wanted:
        if name in PROGRAMS and shutil.which(PROGRAMS[name]) is None:
            console.print(f"left out: {name} ({PROGRAMS[name]} is not on the PATH)")
        elif name in PEERS:
            python = folder / name / "bin" / "python"
            if ready(folder / name, name) or installed(folder / name, PEERS[name]):
                found[name] = str(python)
            else:
                console.print(f"left out: {name} (pip cannot install {PEERS[name]})")
        else:
            found[name] = sys.executable
    return found


def ready(folder: Path, module: str) -> bool:
    """Whether an earlier run has installed a peer to the end."""
    python = folder / "bin" / "python"
    check = f"import {module}, aiohttp, boto3" if module == "smart_open" else f"import {module}, aiohttp"
    return python.exists() and not subprocess.run([python, "-c", check], check=False, capture_output=True).returncode


def installed(folder: Path, requirement: str) -> bool:
    """Make an environment with one peer."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, requirement, "aiohttp"], check=False, stderr=subprocess.DEVNULL).returncode:
        shutil.rmtree(folder)
        return False
    return True


def run(name: str, python: str, order: Order) -> dict[str, float] | None:
    """One mover, once; None when it failed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | {
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
    }
    if python == sys.executable:
        environment["PYTHONPATH"] = str(HERE.parents[1])
    if order.certificate:
        environment |= {"AWS_CA_BUNDLE": order.certificate, "SSL_CERT_FILE": order.certificate}
    command = [python, str(HERE / "movers.py"), name, json.dumps(asdict(order))]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=MOVER_S, check=False, cwd=HERE
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        sys.stderr.write(f"{name}: {done.stderr[-500:]}\n")
        return None
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def race(course: Course, movers: dict[str, str], runs: int) -> dict[str, list[dict[str, float]]]:
    """All movers in turn, so that what else the machine does meets each of them."""
    results: dict[str, list[dict[str, float]]] = defaultdict(list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tls = certificate(folder) if course.tls else None
        key = str(tls.path_with_key) if tls else None
        source = stack.enter_context(running("source", key))
        endpoint = stack.enter_context(running("sink", key))
        order = Order(
            source=f"{source}/a.csv?bytes={course.bytes}&framing={course.framing}",
            endpoint=endpoint,
            bytes=course.bytes,
            files=course.files,
            at_once=course.at_once,
            certificate=str(tls.path) if tls else "",
        )
        for _ in range(runs):
            for name, python in movers.items():
                if name == "floor" and (course.tls or course.framing != "length"):
                    continue
                if (figures := run(name, python, order)) is not None:
                    results[name].append(figures)
    return results


def table(course: Course, results: dict[str, list[dict[str, float]]]) -> Table:
    """The medians, cheapest first."""
    gib = course.bytes * course.files / GIB
    middle = {
        name: {figure: median(each[figure] for each in runs) for figure in runs[0]} for name, runs in results.items()
    }
    grid = Table(title=course.name, title_justify="left", box=None)
    for column in ("MOVER", "WALL s", "CPU s/GiB", "MEMORY +MiB", "CPU : boto3 tuned", "CPU : floor"):
        grid.add_column(column, justify="left" if column == "MOVER" else "right")
    for name, figures in sorted(middle.items(), key=lambda item: item[1]["cpu_s"]):
        ratios = [
            f"{figures['cpu_s'] / middle[base]['cpu_s']:.2f}" if base in middle and middle[base]["cpu_s"] else "-"
            for base in ("boto3 tuned", "floor")
        ]
        cells = [f"{figures['wall_s']:.2f}", f"{figures['cpu_s'] / gib:.2f}", f"{figures['memory_mib']:.0f}"]
        grid.add_row(name, *cells, *ratios)
    return grid


def main() -> None:
    """Race, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--courses", nargs="+", default=USUAL, choices=list(COURSES))
    parser.add_argument("--movers", nargs="+", default=list(MOVERS), choices=[*MOVERS, *DESIGNS])
    parser.add_argument("--peers", type=Path, default=Path(".bench-peers"), help="where peers are installed")
    told, console = parser.parse_args(), Console(width=120)
    movers = pythons(told.peers.resolve(), told.movers, console)
    console.print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}: medians of {told.runs} runs in turn")
    for name in told.courses:
        console.print(table(COURSES[name], race(COURSES[name], movers, told.runs)))


if __name__ == "__main__":
    main()
