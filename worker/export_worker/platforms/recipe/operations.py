"""What is carried from one step to the next: operation ids and addresses of files. Pure: no I/O.

An operation id is the API's id of the job. If the recipe keeps more values, or the link of the file, they follow it
like the parameters of a URL. The address of a file is the operation id and the number of the file, because its link
may be a secret and expires.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from export_worker.errors import PlatformMalformedError, PlatformNotFoundError, ResultMissingError
from export_worker.lifecycle.observations import RemoteFile
from export_worker.platforms.http.responses import storable_text
from export_worker.platforms.recipe.sealing import Seal
from export_worker.recipes.model import KindSpec
from export_worker.recipes.templates import TemplateError, as_text, expression

VALUE_MAX_CHARS = 512
"""Of an id or a kept value. Real ones have a few dozen characters."""
LINK_MAX_CHARS = 2048
_LINK = "link"
_MARK = "#"


@dataclass(frozen=True, slots=True)
class Operation:
    """A job of the API.

    Args:
        id: The API's id.
        keep: What the recipe keeps of the answer to the submit.
        link: The link of the file, if the answer to the submit had it.
    """

    id: str
    keep: Mapping[str, str] = field(default_factory=dict)
    link: str | None = field(default=None, repr=False)


def read_operation(kind: KindSpec, answer: Any) -> Operation:
    """Returns the job that an answer to a submit names.

    Raises:
        PlatformMalformedError: The answer lacks a value, or has one that cannot be used.
    """
    keep = {name: _value(source, answer, VALUE_MAX_CHARS) for name, source in kind.submit.keep.items()}
    link = _value(kind.result.links or "", answer, LINK_MAX_CHARS) if has_sealed_link(kind) else None
    return Operation(_value(kind.submit.id, answer, VALUE_MAX_CHARS), keep, link)


def has_sealed_link(kind: KindSpec) -> bool:
    """Returns whether the link is known from the answer to the submit only."""
    return kind.poll is None and kind.result.links is not None and kind.result.path is None


def _value(source: str, answer: Any, limit_chars: int) -> str:
    try:
        found = expression(source).value(answer)
    except TemplateError as error:
        raise PlatformMalformedError(str(error)) from None
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    text = None if isinstance(found, bool) else storable_text(as_text(found), limit_chars)
    if text is None or not text.isprintable():
        raise PlatformMalformedError(
            f"the answer has no text or number of at most {limit_chars} characters at {source}"
        )
    return text


def operation_id(operation: Operation, seal: Seal) -> str:
    """Returns the text of an operation id. It has no secret: a link is sealed."""
    carried = dict(operation.keep)
    if operation.link is not None:
        carried[_LINK] = seal.close(operation.link)
    if not carried:
        return operation.id
    return f"{quote(operation.id, safe='')}?{urlencode(carried)}"


def parse_operation(kind: KindSpec, text: str, seal: Seal) -> Operation:
    """Returns the job of an operation id.

    Raises:
        PlatformNotFoundError: The text is no operation id of this kind.
    """
    if not kind.submit.keep and not has_sealed_link(kind):
        return Operation(text)
    number, _, query = text.partition("?")
    carried = dict(parse_qsl(query, keep_blank_values=True))
    sealed = carried.pop(_LINK, None)
    if carried.keys() != kind.submit.keep.keys() or (sealed is None) == has_sealed_link(kind):
        raise PlatformNotFoundError("the operation id is not one of this recipe, or is one of another version of it")
    return Operation(unquote(number), carried, None if sealed is None else _opened(sealed, seal))


def _opened(sealed: str, seal: Seal) -> str:
    link = seal.open(sealed)
    if link is None:
        raise PlatformNotFoundError("the link in the operation id was sealed with another credential; export again")
    return link


def file_of(operation_text: str, number: int, name: str) -> RemoteFile:
    """Returns the file of a job with this number (1 is the first)."""
    return RemoteFile(f"{operation_text}{_MARK}{number}", name)


def parse_file(file: RemoteFile) -> tuple[str, int]:
    """Returns the text of the operation id, and the number of the file.

    Raises:
        ResultMissingError: The address is not one of a recipe.
    """
    text, mark, number = file.uri.rpartition(_MARK)
    if not mark or not number.isascii() or not number.isdigit() or len(number) > 9:
        raise ResultMissingError("the address of the file is not one that a recipe has made")
    return text, int(number)
