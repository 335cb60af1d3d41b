"""The base of all models of the contract."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, ConfigDict, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from export_worker.contract.documented import Documented

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

FIELD_RULE = "field_rule"
"""The type of a validation error about a rule over several fields. Its context has `rule`, and the `field` to name."""


def field_rule(field: str, rule: str) -> PydanticCustomError:
    """Returns the error of a rule over several fields, which names one of them."""
    return PydanticCustomError(FIELD_RULE, "{field}: {rule}", {"field": field, "rule": rule})


class Model(Documented):
    """Immutable. Refuses unknown fields, so that a misspelt option is not ignored silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def isoformat(moment: datetime) -> str:
    """Returns RFC 3339 in UTC with milliseconds, the form of all documents: `2026-11-22T03:00:00.000Z`."""
    text = moment.isoformat(timespec="milliseconds")
    if not text.endswith("+00:00"):
        text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return f"{text[:-6]}Z"


Timestamp = Annotated[
    datetime,
    PlainSerializer(isoformat, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A time with a zone. In JSON it is RFC 3339 in UTC with milliseconds."""


def in_utc(moment: datetime) -> datetime:
    """Returns a time with a zone in UTC.

    Raises:
        ValueError: In UTC, the time is not between the years 1 and 9999.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be between the years 1 and 9999") from None


StatedTime = Annotated[AwareDatetime, AfterValidator(in_utc)]
"""A time that a caller states, in UTC."""


def epoch_ms(moment: datetime) -> int:
    """Returns milliseconds since the epoch: the unit of every score and deadline in Redis."""
    # Integer arithmetic: a float would round some times up to the next millisecond.
    return (moment - _EPOCH) // timedelta(milliseconds=1)
