"""The command `export-worker demo`. Its imports take seconds the first time, because Python compiles the modules."""

import sys

from export_worker.demo.first_line import shown_first_line


def demo(count: int | None, *, serve: bool, as_json: bool) -> None:
    """See `declarations.demo`."""
    with shown_first_line(on_stderr=as_json):
        from export_worker.demo.play import play  # noqa: PLC0415 - after the first line

    sys.exit(0 if play(count, serve=serve, as_json=as_json) else 1)
