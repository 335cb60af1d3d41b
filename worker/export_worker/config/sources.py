"""Finds where a setting is set: the line of the file, or the environment variable. Pure."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile

from export_worker.texts.toml_files import depth_of, line_of

ENV_PREFIX = "EXPORT_"
ENV_DELIMITER = "__"


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of one configuration.

    Args:
        file: The name of the file, for messages.
        text: Its content, which is valid TOML; empty if there is no file.
    """

    file: str
    text: str
    environment: Mapping[str, str]

    def of(self, path: Sequence[str]) -> str | None:
        """Returns where the setting is set, or the section that it is missing in; None if no source has either.

        Args:
            path: E.g. `("gateway", "port")`.
        """
        # The index of an item in a list is no part of the file's text.
        path = list(takewhile(lambda part: not part.isdigit(), path))
        in_file, line = line_of(self.text, path)
        variables = ((_depth_of_variable(name, value, path), name) for name, value in self.environment.items())
        in_variable, variable = max(variables, default=(0, ""))
        if in_variable > in_file or in_variable == len(path):
            return variable
        return f"{self.file}, line {line}" if in_file else None

    def located(self, problem: str) -> str:
        """Returns a problem with the place of its setting, in front of the advice that follows a semicolon.

        Args:
            problem: Begins with the setting: `gateway.port: must be …`.
        """
        if f" (in {self.file}, line " in problem or f" (in {ENV_PREFIX}" in problem:
            return problem  # it has been located already
        setting = problem.partition(" ")[0].rstrip(":")
        source = self.of(setting.split("."))
        message, separator, advice = problem.partition("; ")
        return f"{message} (in {source}){separator}{advice}" if source else problem


def _depth_of_variable(name: str, value: str, path: Sequence[str]) -> int:
    """Returns how many parts of a path a variable sets; its value may be the JSON of a section."""
    if not name.upper().startswith(ENV_PREFIX):
        return 0
    parts = name[len(ENV_PREFIX) :].lower().split(ENV_DELIMITER)
    matching = takewhile(lambda pair: pair[0] == pair[1].lower(), zip(parts, path, strict=False))
    depth = sum(1 for _ in matching)
    if depth < len(parts):
        return depth
    with suppress(ValueError, RecursionError):
        depth += depth_of(json.loads(value), path[depth:])
    return depth
