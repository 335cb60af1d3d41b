"""Computes what a load needs of Redis, control, transfer and gateway, and compares slices of it with runs.

    make scale-model ARGS="--exports=1000000 --files=3 --mib=10"
    make scale-model ARGS=--check

The costs of one thing are in `costs.toml`, each with the command that measures it. Without options, it prints the table
of the guide. The check needs at most three minutes on two cores.
"""

import asyncio
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import fields

from rich.console import Console
from rich.table import Table

from benchmarks.scale.check import EXPORTS, check, work
from benchmarks.scale.model import Load, read_costs
from benchmarks.scale.tables import GUIDE, GUIDE_GIB, HEAD, ends, rows, with_guide
from support.paths import ROOT

GUIDE_PAGE = ROOT / "worker/OPERATING.md"
CONSOLE = Console(width=150)


def options_of(arguments: list[str]) -> Namespace:
    """Returns the options."""
    parser = ArgumentParser(prog="make scale-model ARGS=…", description=__doc__.partition("\n")[0])
    for field in fields(Load):
        default = f"default: {field.default:g}"
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, help=default)
    parser.add_argument("--redis-gib", type=float, default=GUIDE_GIB, help="maxmemory of one Redis")
    parser.add_argument("--check", action="store_true", help="run slices, and compare them with the model")
    parser.add_argument("--records", type=int, default=EXPORTS, help="ended exports that the check writes")
    parser.add_argument("--write", action="store_true", help="write the table into worker/OPERATING.md")
    return parser.parse_args(arguments)


def main() -> None:
    """Does what the options ask for."""
    options, costs = options_of(sys.argv[1:]), read_costs()
    if options.check:
        asyncio.run(check(CONSOLE, costs, options.records))
        return
    if options.write:
        GUIDE_PAGE.write_text(with_guide(GUIDE_PAGE.read_text(encoding="utf-8"), costs), encoding="utf-8")
        return
    given = {field.name: value for field in fields(Load) if (value := getattr(options, field.name)) is not None}
    loads = [Load(**given)] if given else GUIDE
    table = Table(*HEAD)
    for row in rows(loads, costs, options.redis_gib):
        table.add_row(*row)
    CONSOLE.print(table)
    CONSOLE.print(ends(loads[0], costs, options.redis_gib))


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        work(*sys.argv[2:])
    else:
        main()
