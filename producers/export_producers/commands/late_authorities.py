"""Reads the authorities that TLS trusts when the first connection needs them, and not at the start of a process."""

from collections.abc import Iterator
from contextlib import contextmanager
from ssl import Purpose, SSLContext, SSLObject
from typing import Any


@contextmanager
def late_authorities() -> Iterator[None]:
    """Makes TLS contexts of the block read the authorities of the system when they are used first.

    aiohttp makes a context when it is imported, and most processes never use it: to read the authorities takes 50 ms of
    processor time and 3 MiB of memory.
    """
    read = SSLContext.load_default_certs

    def read_when_used(context: SSLContext, purpose: Purpose = Purpose.SERVER_AUTH) -> None:
        wrap = context.wrap_bio  # which asyncio calls for each connection

        def wrap_first(*arguments: Any, **options: Any) -> SSLObject:
            del vars(context)["wrap_bio"]
            context.load_default_certs(purpose)
            return wrap(*arguments, **options)

        vars(context)["wrap_bio"] = wrap_first

    vars_of_class: Any = SSLContext
    vars_of_class.load_default_certs = read_when_used
    try:
        yield
    finally:
        vars_of_class.load_default_certs = read
