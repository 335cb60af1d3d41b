"""Keeps packages out of a process that other packages would import, but that no command uses.

A package that is already imported is not changed. Only commands call this: a service that imports `export_producers`
chooses its imports itself.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

UNUSED = ("jwt",)
"""redis-py imports it for tokens of Entra ID, which are not supported here. It loads 50 modules of `cryptography`."""
FOR_OTHERS = ("rich", "greenlet", "pytz")
"""structlog imports the first two if they are installed: for tracebacks in colours, and for programs that use gevent.
arq imports the third one, for time zones in its own log lines."""


def defer(package: str) -> None:
    """Makes the first use of a package import it, and not the first `import`."""
    if package in sys.modules:
        return
    stand_in = sys.modules[package] = ModuleType(package)

    def used(name: str) -> Any:
        if sys.modules.get(package) is stand_in:
            del sys.modules[package]
        return getattr(import_module(package), name)

    vars(stand_in)["__getattr__"] = used


@contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Makes packages count as not installed for the imports of the block, unless they have been imported before."""
    added = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(added))  # type: ignore[arg-type]  # `import` refuses a module that is None
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def import_lean(*, stays: bool) -> None:
    """Prepares the imports of a command.

    Args:
        stays: The command is a process that runs until it is stopped, and that logs.
    """
    for package in UNUSED:
        defer(package)
    if stays:
        from export_producers.commands.late_authorities import late_authorities  # noqa: PLC0415 - imports ssl

        with hidden(*FOR_OTHERS), late_authorities():
            # Imported here, because none of them is needed for `--help`, and some are not part of the base install.
            for package in ("structlog", "arq", "aiohttp"):
                import_module(package)
