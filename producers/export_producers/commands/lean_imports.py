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
FOR_DEVELOPERS = ("rich", "greenlet")
"""structlog imports them if they are installed: for tracebacks in colours, and for programs that use gevent."""


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
        with hidden(*FOR_DEVELOPERS):
            import structlog  # noqa: F401, PLC0415 - not part of the base install
