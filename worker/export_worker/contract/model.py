"""What all models of the contract have in common."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainSerializer
from pydantic_core import PydanticCustomError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

FIELD_RULE = "field_rule"
"""Type of a validation error over a whole model; its context has the `field` that it is told for, and `rule`."""


def field_rule(field: str, rule: str) -> PydanticCustomError:
    """The error of a rule over several fields, told for one of them."""
    return PydanticCustomError(FIELD_RULE, "{field}: {rule}", {"field": field, "rule": rule})


class Model(BaseModel):
    """Immutable, and refuses fields that it does not know: a misspelt option must not be ignored in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


def isoformat(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, as every document of ours has it: `2026-11-22T03:00:00.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Timestamp = Annotated[datetime, PlainSerializer(isoformat, return_type=str)]
"""A moment with a zone; on the wire RFC 3339 in UTC with milliseconds."""


def epoch_ms(moment: datetime) -> int:
    """Milliseconds since the epoch: the unit of every score and deadline in Redis."""
    # In whole numbers: a float would round some moments up to the next millisecond.
    return (moment - _EPOCH) // timedelta(milliseconds=1)
