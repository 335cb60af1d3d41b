"""A secret of the configuration, as the parts that use it hold it."""

from collections.abc import Callable
from typing import Self

from pydantic import SecretStr

from export_worker.credentials import Redactor, reveal


class Secret:
    """One secret. Its value is masked before it is returned for the first time.

    Args:
        reference: The value in the configuration: `env:NAME`, `file:/path`, or the secret itself.
        setting: Name of the setting, for messages.
        redactor: Masks the secret.

    Raises:
        ConfigError: The reference cannot be read. The message names the setting.
    """

    def __init__(self, reference: SecretStr, setting: str, redactor: Redactor) -> None:
        self.setting = setting
        self._value = reveal(reference, setting)
        redactor.add(self._value)

    @classmethod
    def of(cls, text: str) -> Self:
        """Returns a constant text in the form of a secret. It is not masked."""
        return cls(SecretStr(text), "", Redactor())

    @property
    def current(self) -> str:
        """The value that was read last."""
        return self._value

    def must(self, check: Callable[[str, str], str]) -> Self:
        """Sets a check of every value. Returns this secret.

        Args:
            check: Receives value and setting, and returns the value.

        Raises:
            ConfigError: The current value does not pass the check.
        """
        check(self._value, self.setting)
        return self

    async def value(self) -> str:
        """Returns the current value."""
        return self._value

    async def reread(self) -> str:
        """Reads the reference again, after the platform refused the value. Returns the value."""
        return self._value
