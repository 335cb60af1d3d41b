"""Compares the transfer engine with other tools (peers): same source, same sink, several runs. `make bench-transfer`.

The project depends on no peer: pip installs Python packages into separate virtual environments, and `aws` and `rclone`
are taken from the PATH. A peer that is not available is skipped and named. The source sends with sendfile. The sink
discards the bytes without a copy, and returns the checksum of the request. `floor`, a plain copy, shows how much faster
than any mover the servers are.

`--goals` takes the figures that the project has set itself, in less than three minutes: the ratio of the engine's
processor time to that of boto3 tuned. Each round gives one ratio; the table has their median, least and greatest.
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

from benchmarks.transfer.movers import DESIGNS, MOVERS, Workload
from benchmarks.transfer.servers import running
from support.certificates import certificate

HERE = Path(__file__).parent
PEERS = {"aioboto3": "aioboto3", "smart_open": "smart_open[s3]", "obstore": "obstore"}
"""Packages that are installed in separate environments, because they need incompatible versions of botocore."""
PROGRAMS = {"aws-cli": "aws", "rclone": "rclone"}
MOVER_TIMEOUT_S = 300
"""A mover that takes longer is hanging."""
GIB = 2**30


@dataclass(frozen=True)
class Case:
    """The files of one comparison.

    Args:
        name: The title of the table.
        bytes: The size of each file.
        files: The number of files.
        at_once: The number of files that are moved concurrently.
        framing: How the source marks the end of a file.
        tls: Whether source and sink use TLS.
        sink: `sink`, or `plain-sink`, which returns no checksums.
    """

    name: str
    bytes: int
    files: int = 1
    at_once: int = 1
    framing: str = "length"
    tls: bool = False
    sink: str = "sink"


CASES = {
    "known": Case("one file, known length", GIB),
    "unknown": Case("one file, unknown length", GIB, framing="chunked"),
    "eight": Case("eight files at once", GIB // 8, files=8, at_once=8),
    "tls": Case("one file, TLS on both sides", GIB, tls=True),
    "eight-unknown": Case("eight files at once, unknown length", GIB // 8, files=8, at_once=8, framing="chunked"),
    "eight-tls": Case("eight files at once, TLS on both sides", GIB // 8, files=8, at_once=8, tls=True),
    "unknown-tls": Case("one file, unknown length, TLS on both sides", GIB, framing="chunked", tls=True),
    "unconfirmed": Case("one file, a store that returns no checksums", GIB, sink="plain-sink"),
    "unconfirmed-tls": Case("one file, TLS, a store that returns no checksums", GIB, tls=True, sink="plain-sink"),
    "small": Case("500 files of 100 KiB, 16 at once", 100 * 1024, files=500, at_once=16),
}
DEFAULT_CASES = ["known", "unknown", "eight", "tls", "unconfirmed", "small"]
GOALS = {"known": 0.70, "unknown": 0.65, "eight": 0.50, "tls": 0.80}
"""The greatest ratio of the engine's processor time to that of `TUNED`."""
MEMORY_GOAL_MIB = 48
"""The greatest growth of memory of the engine, for one file."""
ENGINE, TUNED = "export-worker", "boto3 tuned"


def pythons(folder: Path, wanted: list[str], console: Console) -> dict[str, str]:
    """Returns the Python of each mover. Movers that are not available are skipped."""
    found = {}
    for name in wanted:
        if name in PROGRAMS and shutil.which(PROGRAMS[name]) is None:
            console.print(f"skipped: {name} ({PROGRAMS[name]} is not on the PATH)")
        elif name in PEERS:
            python = folder / name / "bin" / "python"
            if is_installed(folder / name, name) or install(folder / name, PEERS[name]):
                found[name] = str(python)
            else:
                console.print(f"skipped: {name} (pip cannot install {PEERS[name]})")
        else:
            found[name] = sys.executable
    return found


def is_installed(folder: Path, module: str) -> bool:
    """Returns whether an earlier run has installed a peer completely."""
    python = folder / "bin" / "python"
    check = f"import {module}, aiohttp, boto3" if module == "smart_open" else f"import {module}, aiohttp"
    return python.exists() and not subprocess.run([python, "-c", check], check=False, capture_output=True).returncode


def install(folder: Path, requirement: str) -> bool:
    """Creates an environment with one peer. Returns whether that succeeded."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, requirement, "aiohttp"], check=False, stderr=subprocess.DEVNULL).returncode:
        shutil.rmtree(folder)
        return False
    return True


def run(name: str, python: str, workload: Workload) -> dict[str, float] | None:
    """Runs a mover once, and returns its figures; None if it failed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | {
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
    }
    if python == sys.executable:
        environment["PYTHONPATH"] = str(HERE.parents[1])
    if workload.certificate:
        environment |= {"AWS_CA_BUNDLE": workload.certificate, "SSL_CERT_FILE": workload.certificate}
    command = [python, str(HERE / "movers.py"), name, json.dumps(asdict(workload))]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=MOVER_TIMEOUT_S, check=False, cwd=HERE
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        sys.stderr.write(f"{name}: {done.stderr[-500:]}\n")
        return None
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def compare(case: Case, movers: dict[str, str], runs: int) -> dict[str, list[dict[str, float]]]:
    """Runs all movers in turn, so that other load on the machine affects each of them."""
    results: dict[str, list[dict[str, float]]] = defaultdict(list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tls = certificate(folder) if case.tls else None
        key = str(tls.path_with_key) if tls else None
        source = stack.enter_context(running("source", key))
        endpoint = stack.enter_context(running(case.sink, key))
        workload = Workload(
            source=f"{source}/a.csv?bytes={case.bytes}&framing={case.framing}",
            endpoint=endpoint,
            bytes=case.bytes,
            files=case.files,
            at_once=case.at_once,
            certificate=str(tls.path) if tls else "",
        )
        for _ in range(runs):
            for name, python in movers.items():
                if name == "floor" and (case.tls or case.framing != "length"):
                    continue
                if (figures := run(name, python, workload)) is not None:
                    results[name].append(figures)
    return results


def goals(results: dict[str, dict[str, list[dict[str, float]]]]) -> Table:
    """Returns the table of the goals: ratios of each round, in which both movers ran one after the other."""
    grid = Table(title="CPU : boto3 tuned", title_justify="left", box=None)
    for column in ("CASE", "MEDIAN", "LEAST", "GREATEST", "GOAL", "MEMORY +MiB", "CPU s/GiB", "BOTO3"):
        grid.add_column(column, justify="left" if column == "CASE" else "right")
    for name, movers in results.items():
        gib = CASES[name].bytes * CASES[name].files / GIB
        own, peer = ([run["cpu_s"] for run in movers[mover]] for mover in (ENGINE, TUNED))
        ratios = [mine / other for mine, other in zip(own, peer, strict=True)]
        figures = [f"{figure(ratios):.2f}" for figure in (median, min, max)]
        goal = f"{GOALS[name]:.2f}" if name in GOALS else "-"
        memory = f"{median(run['memory_mib'] for run in movers[ENGINE]):.0f}"
        grid.add_row(CASES[name].name, *figures, goal, memory, f"{median(own) / gib:.2f}", f"{median(peer) / gib:.2f}")
    return grid


def run_goals(runs: int, console: Console) -> None:
    """Measures the cases that have a goal, and what a store costs that returns no checksums."""
    movers = {ENGINE: sys.executable, TUNED: sys.executable}
    results = {name: compare(CASES[name], movers, runs) for name in (*GOALS, "unconfirmed")}
    console.print(goals(results))
    console.print(f"Memory of one file: at most +{MEMORY_GOAL_MIB} MiB.")
    costs = {name: median(run["cpu_s"] for run in results[name][ENGINE]) for name in ("known", "unconfirmed")}
    extra_s = costs["unconfirmed"] - costs["known"]
    console.print(
        f"A store that returns no checksums costs {extra_s:+.2f} CPU s/GiB: each part carries Content-MD5, too."
    )
    console.print("Over TLS it costs nothing, unless s3.integrity is `always` (--cases tls unconfirmed-tls).")


def table(case: Case, results: dict[str, list[dict[str, float]]]) -> Table:
    """Returns the table of medians, sorted by processor time."""
    gib = case.bytes * case.files / GIB
    medians = {
        name: {figure: median(each[figure] for each in runs) for figure in runs[0]} for name, runs in results.items()
    }
    grid = Table(title=case.name, title_justify="left", box=None)
    for column in ("MOVER", "WALL s", "CPU s/GiB", "MEMORY +MiB", "CPU : boto3 tuned", "CPU : floor"):
        grid.add_column(column, justify="left" if column == "MOVER" else "right")
    for name, figures in sorted(medians.items(), key=lambda item: item[1]["cpu_s"]):
        ratios = [
            f"{figures['cpu_s'] / medians[base]['cpu_s']:.2f}" if base in medians and medians[base]["cpu_s"] else "-"
            for base in ("boto3 tuned", "floor")
        ]
        cells = [f"{figures['wall_s']:.2f}", f"{figures['cpu_s'] / gib:.2f}", f"{figures['memory_mib']:.0f}"]
        grid.add_row(name, *cells, *ratios)
    return grid


def main() -> None:
    """Runs the comparison, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cases", nargs="+", default=DEFAULT_CASES, choices=list(CASES))
    parser.add_argument("--movers", nargs="+", default=list(MOVERS), choices=[*MOVERS, *DESIGNS])
    parser.add_argument("--peers", type=Path, default=Path(".bench-peers"), help="where peers are installed")
    parser.add_argument("--goals", action="store_true", help="only the engine's ratios to boto3 tuned, and their goals")
    options, console = parser.parse_args(), Console(width=120)
    if options.goals:
        run_goals(options.runs, console)
        return
    movers = pythons(options.peers.resolve(), options.movers, console)
    console.print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}: medians of {options.runs} runs in turn")
    for name in options.cases:
        console.print(table(CASES[name], compare(CASES[name], movers, options.runs)))


if __name__ == "__main__":
    main()
