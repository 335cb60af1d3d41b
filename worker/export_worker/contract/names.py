"""Finds the name that was probably meant by one that does not exist. Pure. Imports no large package."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

NAME_MAX_CHARS = 64
"""No known name is longer, and the search for a similar name takes longer with each character."""
SIMILARITY_MIN = 0.7
"""Finds one wrong or missing letter also in names of four letters. Swapped letters are found in every name."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns `; did you mean X?` with the known name that is most similar, or nothing if none is."""
    meant = similar_name(name, known)
    return f"; did you mean {meant}?" if meant else ""


def similar_name(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that is most similar, or None if none is."""
    if len(name) > NAME_MAX_CHARS:
        return None
    letters, names = _letters(name), {_letters(each): each for each in known}
    swapped = [each for each in names if sorted(each) == sorted(letters)]
    close = swapped or get_close_matches(letters, names, n=1, cutoff=SIMILARITY_MIN)
    return names[close[0]] if close else None


def _letters(name: str) -> str:
    """Returns a name without its case and its separators: `baseUrl`, `base-url` and `base_url` are the same."""
    return re.sub(r"[-_. ]", "", name).lower()


def unknown_name(what: str, name: str, known: Iterable[str], *, none: str = "none is configured") -> str:
    """Returns the message for a name that does not exist, with the similar one and all that exist.

    Args:
        what: What the name is of, e.g. `connection`.
        none: Listed if no name exists.
    """
    names = sorted(known)
    return f"unknown {what} {name!r}{did_you_mean(name, names)}; known: {', '.join(names) or none}"
