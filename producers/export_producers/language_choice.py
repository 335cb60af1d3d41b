"""Chooses the language of texts from what a caller prefers. Pure. Help and completion import this module."""

import re

from export_producers.choices import LANGUAGES, Language

_WEIGHT = re.compile(r"q\s*=\s*([01](?:\.[0-9]{0,3})?)", re.IGNORECASE | re.ASCII)
"""The weight of a language, from 0 to 1 (RFC 9110)."""


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
