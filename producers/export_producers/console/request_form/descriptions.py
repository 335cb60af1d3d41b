"""The descriptions of the JSON Schema of requests, as the page shows them. Pure."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from export_producers.choices import Language

_CODE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True, slots=True)
class Description:
    """A description in a language.

    Args:
        parts: Its text, in which every second part is code.
        is_foreign: Whether it is in English on a page of another language: the kind is of another package.
    """

    parts: Sequence[str]
    is_foreign: bool = False


@cache
def translations() -> Mapping[str, str]:
    """Returns the Chinese descriptions by the English ones."""
    source = (files("export_producers.languages") / "schema_zh.toml").read_text(encoding="utf-8")
    found: Mapping[str, str] = tomllib.loads(source)["zh"]
    return found


def described(language: Language, english: str) -> Description:
    """Returns a description of the schema in a language, if it has been translated."""
    if language == "en":
        return Description(_CODE.split(english))
    translated = translations().get(english)
    return Description(_CODE.split(translated or english), is_foreign=translated is None)
