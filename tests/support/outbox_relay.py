"""The relay of `producers/OUTBOX.md` in processes that kill themselves: `outbox_relay.py DATABASE REDIS NAMESPACE`.

One process after the other relays, and each dies at another point, until the last one does not. It dies `before` it
enqueues; when Redis has accepted `half` of the requests; `after` Redis has accepted all, and the rows are not yet
committed; and when the rows are `committed`.
"""

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine

from export_producers import SyncExportQueue

PAGE = Path(__file__).resolve().parents[2] / "producers" / "OUTBOX.md"
POINTS = ("before", "half", "after", "committed")


def example() -> dict[str, Any]:
    """Returns the names that the code of the page defines."""
    parts = PAGE.read_text(encoding="utf-8").split("```python\n")[1:]
    names: dict[str, Any] = {"__name__": "outbox_example"}
    code = "\n".join(part.partition("```")[0] for part in parts)
    exec(compile(code, str(PAGE), "exec", dont_inherit=True), names)
    return names


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DyingQueue(SyncExportQueue):
    """A queue whose process dies at a point."""

    point = "never"

    def enqueue_many(self, requests: Iterable[Any], **more: Any) -> Any:
        """See `ExportQueue.enqueue_many`."""
        every = list(requests)
        if self.point == "before" and every:
            _die()
        if self.point == "half" and every:
            super().enqueue_many(every[: (len(every) + 1) // 2], **more)
            _die()
        results = super().enqueue_many(every, **more)
        if self.point == "after" and every:
            _die()
        return results


def run(database: str, redis_url: str, namespace: str, point: str) -> None:
    """Relays until nothing is left, or until the process dies."""
    names, engine = example(), create_engine(database)
    with DyingQueue(redis_url, namespace=namespace) as queue:
        queue.point = point
        while names["relay"](engine, queue):
            if point == "committed":
                _die()
    engine.dispose()


def main(database: str, redis_url: str, namespace: str) -> None:
    """Runs a relay for each point, and prints the exit status of each. Only they open connections."""
    for point in (*POINTS, "never"):
        child = os.fork()
        if child == 0:
            run(database, redis_url, namespace, point)
            os._exit(0)
        sys.stdout.write(f"{point} {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
