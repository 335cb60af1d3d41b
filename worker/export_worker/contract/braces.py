"""Splits texts in which `{…}` holds a JMESPath expression. Pure."""

from collections.abc import Callable, Iterator
from typing import TypeVar

QUOTES = "'\"`"
"""The characters that quote a part of an expression. Braces within quotes do not end the expression."""
EVALUATION_ERRORS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What an evaluation raises. jmespath's own errors are ValueErrors; `a < 3` of a text is a TypeError."""

Compiled = TypeVar("Compiled")


def parts_of(text: str, compiled: Callable[[str], Compiled]) -> Iterator[str | Compiled]:
    """Yields the plain texts and the compiled expressions of a text, in their order.

    Args:
        text: The text.
        compiled: Compiles the source of an expression. It may raise ValueError.

    Raises:
        ValueError: A brace is unmatched.
    """
    position = 0
    while position < len(text):
        begin = text.find("{", position)
        plain = text[position:] if begin < 0 else text[position:begin]
        if "}" in plain:
            raise ValueError("a closing brace has no opening brace")
        if plain:
            yield plain
        if begin < 0:
            return
        position = _end(text, begin)
        yield compiled(text[begin + 1 : position - 1])


def _end(text: str, begin: int) -> int:
    """Returns the position behind the closing brace that matches the opening brace at `begin`."""
    depth, quote, position = 0, "", begin
    while position < len(text):
        character = text[position]
        if quote:
            if character == "\\":
                position += 1
            elif character == quote:
                quote = ""
        elif character in QUOTES:
            quote = character
        else:
            depth += {"{": 1, "}": -1}.get(character, 0)
            if depth == 0:
                return position + 1
        position += 1
    raise ValueError("an opening brace has no closing brace")
