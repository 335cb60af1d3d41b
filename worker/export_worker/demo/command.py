"""The command `export-worker demo`. It prints its first line before the imports, which take seconds the first time."""

import shutil
import sys

STARTING = "Starting Redis, an S3 server, the platform simulator and two workers …"
"""The first line of the demo."""
_CLEAR_LINE = "\r\x1b[K"


def demo(count: int | None, *, serve: bool, as_json: bool) -> None:
    """See `declarations.demo`."""
    stream = sys.stderr if as_json else sys.stdout
    announced = stream is not None and stream.isatty()
    if announced:
        stream.write(STARTING[: shutil.get_terminal_size().columns - 1])
        stream.flush()
    from export_worker.demo.play import play  # noqa: PLC0415 - after the first line

    if announced:
        stream.write(_CLEAR_LINE)
        stream.flush()
    sys.exit(0 if play(count, serve=serve, as_json=as_json) else 1)
