"""Runs chaos scenarios. Run it with `make chaos ARGS='--kills 1000 --seed 7'`.

It prints the seed, a table of figures and each broken promise, and exits with 1 if a promise was broken.
"""

import argparse
import asyncio
import logging
import random
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from chaos import drip, kills, poison
from chaos.monkey import Tempo
from chaos.report import Report
from support import secret_canaries

SCENARIOS = ("poison", "drip", "kills")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], help="default: all of them")
    parser.add_argument("--kills", type=int, default=100, help="processes to kill (default 100)")
    parser.add_argument("--seconds", type=float, default=3600.0, help="longest time of the kills (default 3600)")
    parser.add_argument("--every", type=float, default=0.9, help="mean seconds between two actions (default 0.9)")
    parser.add_argument("--seed", type=int, help="replays the decisions of a run (default: random)")
    parser.add_argument("--keep", type=Path, help="directory for the logs (default: kept only if a promise was broken)")
    return parser.parse_args()


async def _run(name: str, directory: Path, seed: int, arguments: argparse.Namespace) -> Report:
    match name:
        case "poison":
            return await poison.run(directory, seed)
        case "drip":
            return await drip.run(directory, seed)
        case _:
            tempo = Tempo(kill_s=(arguments.every / 2, arguments.every * 3 / 2))
            return await kills.run(directory, seed, kills.Bounds(arguments.kills, arguments.seconds, tempo))


def main() -> int:
    """Runs the scenarios, and prints their results."""
    arguments = _arguments()
    # A killed worker leaves downloads that the simulator's server would report as errors.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    console, failed = Console(), False
    parent = Path(tempfile.mkdtemp(prefix="chaos-", dir=arguments.keep))
    for name in arguments.scenario or SCENARIOS:
        console.print(f"{name}: seed {seed}, logs in {parent / name}", markup=False, soft_wrap=True)
        report = asyncio.run(_run(name, parent / name, seed, arguments))
        secret_canaries.search_files(parent)
        report.print(console)
        failed = failed or report.failed
    if failed:
        again = f"repeat it with ARGS='--seed {seed} --kills {arguments.kills} --every {arguments.every}'"
        console.print(f"promises were broken: read {parent}, and {again}", markup=False, soft_wrap=True)
    else:
        console.print("every promise was kept")
        if arguments.keep is None:
            shutil.rmtree(parent)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
