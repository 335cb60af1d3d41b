"""The texts that people read, in English and in Simplified Chinese: a folder of TOML files for each language. Pure.

The files of `console` are for the pages, one file for a page. Both languages have the same keys and arguments.
"""

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from export_producers.choices import Language
from export_producers.durations import in_units


def text(language: Language, key: str, /, **arguments: object) -> str:
    """Returns one text with its arguments, e.g. `text("en", "explain.entry_missing")`.

    Raises:
        KeyError: There is no such text, or it needs another argument.
    """
    return texts(language)[key].format_map(arguments)


@cache
def texts(language: Language) -> Mapping[str, str]:
    """Returns the texts of a language, by the name of their table, a dot, and their own name."""
    tables = [tomllib.loads(each.read_text(encoding="utf-8")) for each in _files(files(__name__) / language)]
    return {f"{table}.{name}": each for file in tables for table, named in file.items() for name, each in named.items()}


def _files(folder: Traversable) -> Iterator[Traversable]:
    for each in sorted(folder.iterdir(), key=lambda file: file.name):
        if each.is_dir():
            yield from _files(each)
        elif each.name.endswith(".toml"):
            yield each


def duration(language: Language, seconds: float) -> str:
    """Returns a duration with its two largest units, e.g. `185` as `3 min 5 s`."""
    return _in_units(language, round(seconds), 2)


def short(language: Language, seconds: float) -> str:
    """Returns a duration with its largest unit only, e.g. `185` as `3 min`."""
    return _in_units(language, int(seconds), 1)


def age(language: Language, seconds: float) -> str:
    """Returns how long ago something was, e.g. `3 min ago`; with a negative number how far ahead: `in 3 min`."""
    key = "age.ahead" if seconds <= -1 else "age.ago"
    return text(language, key, span=_in_units(language, abs(int(seconds)), 1))


def _in_units(language: Language, seconds: int, most: int) -> str:
    parts = in_units(seconds, most)
    return " ".join(text(language, f"unit.{unit}", count=count) for count, unit in parts)
