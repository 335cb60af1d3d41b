"""A secret of the configuration, as the parts that use it hold it."""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Self

import structlog
from pydantic import SecretStr

from export_worker.credentials import Redactor, reveal
from export_worker.errors import ConfigError
from export_worker.references.reading import check_interval_s

KNOWN_VALUES = 4
"""Values that are masked: the current one, and earlier ones that late answers may repeat. Masking is slower with each
value."""
READ_WAIT_S = 1.0
"""Longest wait for a read of a value that may have changed (seconds). After that, the known value is used, and the read
continues: calls to a platform do not wait for a file system that hangs."""
REREAD_WAIT_S = 30.0
"""Longest wait for a read after the platform refused the value (seconds): longer than two attempts to ask AWS."""

_log = structlog.get_logger(__name__)


class Secret:
    """One secret. It is read again while it is used, and its value is masked before it is returned for the first time.

    A new value that cannot be read or used is reported in the log, and the previous one stays in use.

    Args:
        reference: The value in the configuration: `env:NAME`, `file:/path`, `aws-sm:NAME`, or the secret itself.
        setting: Name of the setting, for messages.
        redactor: Masks the secret.
        clock: Monotonic clock in seconds.

    Raises:
        ConfigError: The reference cannot be read. The message names the setting.
    """

    def __init__(
        self,
        reference: SecretStr,
        setting: str,
        redactor: Redactor,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.setting = setting
        self._reference = reference
        self._mask = redactor.rotating(KNOWN_VALUES)
        self._clock = clock
        self._check_s = check_interval_s(reference.get_secret_value()) or math.inf
        self._checks: list[Callable[[str, str], object]] = []
        self._problem = ""
        self._reading: asyncio.Task[None] | None = None
        self._read_s = clock()
        self._value = reveal(reference, setting)
        self._mask(self._value)

    @classmethod
    def of(cls, text: str) -> Self:
        """Returns a constant text in the form of a secret. It is not masked."""
        return cls(SecretStr(text), "", Redactor())

    @property
    def current(self) -> str:
        """The value that was read last."""
        return self._value

    def must(self, check: Callable[[str, str], object]) -> Self:
        """Adds a check of every value. Returns this secret.

        Args:
            check: Receives value and setting, and raises ConfigError for a value that cannot be used.

        Raises:
            ConfigError: The current value does not pass the check.
        """
        check(self._value, self.setting)
        self._checks.append(check)
        return self

    async def value(self) -> str:
        """Returns the current value. A file is read again if the last read was a second ago, AWS after five minutes."""
        if self._clock() - self._read_s >= self._check_s:
            await asyncio.wait({self._started()}, timeout=READ_WAIT_S)
        return self._value

    async def reread(self) -> str:
        """Reads the reference again, after the platform refused the value. Returns the current value.

        All callers that wait share one read. A read that hangs continues, and the known value is returned.
        """
        if self._check_s < math.inf:
            running = self._reading
            if running is not None and not running.done():
                # It may have begun before the value was exchanged.
                await asyncio.wait({running}, timeout=REREAD_WAIT_S)
            if running is None or running.done():
                await asyncio.wait({self._started()}, timeout=REREAD_WAIT_S)
        return self._value

    def _started(self) -> "asyncio.Task[None]":
        """Returns the read that is running, or starts one."""
        if self._reading is None or self._reading.done():
            self._read_s = self._clock()
            self._reading = asyncio.create_task(self._read())
        return self._reading

    async def _read(self) -> None:
        try:
            value = await asyncio.to_thread(reveal, self._reference, self.setting, again=True)
            self._mask(value)
            for check in self._checks:
                check(value, self.setting)
        except ConfigError as error:
            # The value in use must not be among those that are forgotten, however many others cannot be used.
            self._mask(self._value)
            if str(error) != self._problem:
                self._problem = str(error)
                _log.warning("secret.not_exchanged", problem=self._problem, effect="the previous value stays in use")
            return
        self._problem = ""
        if value != self._value:
            self._value = value
            _log.info("secret.exchanged", setting=self.setting)
