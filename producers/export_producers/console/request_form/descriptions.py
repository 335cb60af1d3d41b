"""The descriptions of the JSON Schema of requests, as the page shows them. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from export_producers.choices import Language
from export_producers.languages.messages import translated

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


def described(language: Language, english: str) -> Description:
    """Returns a description of the schema in a language, if it has been translated."""
    found = translated(language, english)
    return Description(_CODE.split(found), is_foreign=language != "en" and found == english)
