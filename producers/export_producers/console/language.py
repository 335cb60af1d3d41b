"""The texts of the console, in English and in Simplified Chinese: one TOML file for each language. Pure."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")


def text(language: Language, key: str, /, **arguments: object) -> str:
    """Returns one text with its arguments.

    Raises:
        KeyError: There is no such text, or it needs another argument.
    """
    return texts(language)[key].format_map(arguments)


@cache
def texts(language: Language) -> Mapping[str, str]:
    """Returns the texts of a language, by the name of their table, a dot, and their own name."""
    file = files("export_producers.console") / "texts" / f"{language}.toml"
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return {f"{table}.{name}": each for table, named in tables.items() for name, each in named.items()}


def preferred(wishes: str) -> Language:
    """Returns the language of an `Accept-Language` header: the first one that we have, else English."""
    tags = [tag.strip().lower()[:2] for tag in wishes.split(",")]
    known: dict[str, Language] = {language: language for language in LANGUAGES}
    return next((known[tag] for tag in tags if tag in known), "en")
