"""What a visitor has put into the form for a new export, and what the page shows of it. Pure."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from secrets import token_urlsafe
from typing import Any

from export_producers.console.request_form.forms import Field, cleaned, fields_of, request_of, texts_of
from export_producers.console.request_form.picks import Found, Pick, pick_of
from export_worker.contract.kind_names import PLATFORM_OF_KIND, recipe_kinds
from export_worker.contract.kinds import other_kinds
from export_worker.contract.printable import dumps
from export_worker.errors import FieldProblem

KEY_PREFIX = "console-"
_KEY = re.compile(r"console-[\w-]{16,40}", re.ASCII)

Problems = Sequence[FieldProblem]


def new_key() -> str:
    """Returns the idempotency key of a new form, so that the form requests one export, however often it is sent."""
    return KEY_PREFIX + token_urlsafe(16)


def kinds_of(platform: str) -> list[str]:
    """Returns the kinds of export that a platform offers."""
    platforms = PLATFORM_OF_KIND | {kind: model.platform for kind, model in other_kinds().items()}
    platforms |= {kind: source.platforms()[kind] for kind, source in recipe_kinds().items()}
    return [kind for kind, offered_by in platforms.items() if offered_by == platform]


@dataclass(frozen=True, slots=True)
class Draft:
    """A request that is being written.

    Args:
        key: The idempotency key of the form. It counts if the visitor states none.
        kind: None if the request is written as JSON.
        text: The request as JSON, if it is written so.
    """

    key: str
    connection: str = ""
    kind: str | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    text: str = ""

    @classmethod
    def of_form(cls, form: Mapping[str, str]) -> "Draft":
        """Returns what a form has sent. Its texts are those that the page shows."""
        key = form.get("key", "")
        texts = {name: cleaned(each) for name, each in form.items()}
        return cls(
            key=key if _KEY.fullmatch(key) else new_key(),
            connection=texts.get("connection", ""),
            kind=texts.get("kind") or None,
            texts=texts,
            text=texts.get("json", ""),
        )

    @classmethod
    def of_request(cls, request: Mapping[str, Any], known: Mapping[str, str]) -> "Draft":
        """Returns a new form with a request: with fields if they can state it, otherwise as JSON.

        Args:
            request: As it was stored. Its idempotency key is left out, because the key has its export already.
            known: The connections with their platforms.
        """
        request = {name: each for name, each in request.items() if name != "idempotency_key"}
        export, connection = request.get("export"), str(request.get("connection"))
        kind = export.get("kind") if isinstance(export, Mapping) else None
        if isinstance(kind, str) and kind in kinds_of(known.get(connection, "")):
            texts = texts_of(fields_of(kind), request)
            if texts is not None:
                return cls(new_key(), connection, kind, texts)
        return cls(new_key(), text=dumps(request, indent=2))

    def body(self) -> str:
        """Returns the request as JSON."""
        if self.kind is None:
            return self.text
        return dumps(request_of(self.connection, self.kind, fields_of(self.kind), self.texts), indent=2)

    def as_json(self) -> "Draft":
        """Returns the same request to be written as JSON."""
        return Draft(self.key, text=self.body())

    def as_fields(self, known: Mapping[str, str]) -> "Draft":
        """Returns the same request in fields, if they can state it."""
        try:
            request = json.loads(self.text)
        except (ValueError, RecursionError):
            return self
        return replace(Draft.of_request(request, known), key=self.key) if isinstance(request, dict) else self

    def with_pick(self, name: str, value: str) -> "Draft":
        """Returns the form with a value from the catalog in one of its fields. A list gets it as another line."""
        of = next((each for each in fields_of(self.kind or "") if each.name == name), None)
        if of is None:
            return self
        before = self.texts.get(name, "").strip()
        text = f"{before}\n{cleaned(value)}" if of.shape == "list" and before else cleaned(value)
        return replace(self, texts={**self.texts, name: text})


@dataclass(frozen=True, slots=True)
class Input:
    """A field as the page shows it.

    Args:
        lines: Its text. A page writes no line ends of texts.
        problems: What is wrong with it.
        pick: How it can be filled from the catalog; None if it cannot.
        found: The result of a search in the catalog.
    """

    field: Field
    lines: Sequence[str]
    problems: Sequence[str]
    pick: Pick | None
    found: Found | None

    @property
    def id(self) -> str:
        """The id of its element."""
        return id_of(self.field.name)

    @property
    def label(self) -> str:
        """Its name within its group."""
        return self.field.name.removeprefix("export.").removeprefix("output.")

    @property
    def described_by(self) -> str:
        """The ids of the texts that describe it."""
        return f"{self.id}-problem {self.id}-about" if self.problems else f"{self.id}-about"

    @property
    def default(self) -> str | None:
        """The value that counts if it is empty; None if there is none."""
        default = self.field.default
        return None if default in (None, {}, []) else default if isinstance(default, str) else dumps(default)


def id_of(name: str) -> str:
    """Returns the id of the element of a field."""
    return f"field-{name.replace('.', '-')}"


def inputs(draft: Draft, problems: Problems, found: Mapping[str, Found], *, has_catalog: bool) -> list[Input]:
    """Returns the fields of a form.

    Args:
        found: The result of a search, by the name of its field.
    """
    if draft.kind is None:
        return []
    return [
        Input(
            field=each,
            lines=draft.texts.get(each.name, "").split("\n"),
            problems=[problem.message for problem in problems if _is_of(problem, each)],
            pick=pick_of(draft.kind, each.name) if has_catalog else None,
            found=found.get(each.name),
        )
        for each in fields_of(draft.kind)
    ]


GROUPS = ("export", "output", "more")
"""The groups of fields, by the end of the keys of their names: what, how, and everything else."""


def grouped(fields: Sequence[Input]) -> dict[str, list[Input]]:
    """Returns the fields by their group."""
    groups: dict[str, list[Input]] = {name: [] for name in GROUPS}
    for each in fields:
        first = each.field.path[0]
        groups[first if first in groups else "more"].append(each)
    return groups


@dataclass(frozen=True, slots=True)
class SummaryLine:
    """A line of the summary of problems.

    Args:
        target: The id of the element that it is about; None if the form has none.
    """

    target: str | None
    name: str
    message: str


def summary(draft: Draft, problems: Problems) -> Iterator[SummaryLine]:
    """Yields a line for each problem, with a link to its field."""
    fields = () if draft.kind is None else fields_of(draft.kind)
    for problem in problems:
        name = next((each.name for each in fields if _is_of(problem, each)), None)
        target = "json" if draft.kind is None else None if name is None else id_of(name)
        yield SummaryLine(target, problem.field, problem.message)


def _is_of(problem: FieldProblem, of: Field) -> bool:
    return problem.field == of.name or problem.field.startswith(f"{of.name}.")
