"""The texts that people read, in English and in Simplified Chinese: a folder of TOML files for each language. Pure.

The files of `console` are for the pages, one file for a page. Both languages have the same keys and arguments.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from export_producers.choices import LANGUAGES, Language
from export_producers.durations import in_units

_WEIGHT = re.compile(r"q\s*=\s*([01](?:\.[0-9]{0,3})?)", re.IGNORECASE | re.ASCII)
"""The weight of a language, from 0 to 1 (RFC 9110)."""


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


def preferred(*wishes: str | None) -> Language:
    """Returns the first language that a wish names and that we have; English if there is none.

    Args:
        wishes: Each one language, or several with their weights: `zh_CN.UTF-8` or `zh-CN,zh;q=0.9,en;q=0.8`. Of one
            wish, the language with the greatest weight precedes, and one with the weight 0 is refused.
    """
    for wish in wishes:
        tags = [_weighed(tag) for tag in (wish or "").split(",")]
        known = [(weight, language) for weight, language in tags if language is not None and weight > 0]
        if known:
            return max(known, key=lambda each: each[0])[1]
    return "en"


def _weighed(tag: str) -> tuple[float, Language | None]:
    """Returns the weight of a language of `Accept-Language`, and the language if we have it."""
    name, _, parameter = tag.partition(";")
    found = re.split(r"[-_.@]", name.strip().lower())[0]
    weight = _WEIGHT.fullmatch(parameter.strip()) if parameter else None
    value = float(weight[1]) if weight else 0.0 if parameter else 1.0
    return value, next((language for language in LANGUAGES if language == found), None)
