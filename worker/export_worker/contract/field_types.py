"""The types of the fields of a request: texts of a known form, and their limits."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from export_worker.contract.charsets import LABEL
from export_worker.contract.wording import Pattern


def _real_time(text: str) -> str:
    try:
        datetime.strptime(text, "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - the platform's time has no zone
    except ValueError:
        raise ValueError("must be an existing date and time") from None
    return text


Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=512),
    Pattern(r"^[^\x00-\x1f\x7f]+$", "must not contain control characters, such as line ends"),
]
"""A name that a platform uses, without control characters."""
HashId = Annotated[str, Pattern(r"^[A-Za-z0-9]{8}$", "must be 8 letters or digits, such as WlGk4Daj")]
"""GrowingIO: 8 letters or digits (GraphQL reference)."""
Key = Annotated[
    str,
    Pattern(
        r"^[A-Za-z0-9_$#.:-]{1,256}$", "must have 1 to 256 characters: letters, digits and _$#.:-, such as tag_gender"
    ),
]
"""A platform's key of a tag, segment or property. It is used in paths, so it has no slash."""
PathKey = Annotated[
    str,
    Pattern(r"^[A-Za-z0-9_-]{1,128}$", "must have 1 to 128 characters: letters, digits, _ and -, such as WlGk4Daj"),
]
"""A project's id, which is one segment of a URL's path."""
PATH_TEXT_PATTERN = r"^[^\x00-\x20\x7f-\xa0/\\?#%.][^\x00-\x20\x7f-\xa0/\\?#%]{0,127}$"
"""Text that stays one segment of a URL's path once it is percent-encoded, even if proxies decode it several times. It
has no slash or backslash, no character that ends a path or begins an escape, and no dot at the beginning (`..`)."""
PathText = Annotated[
    str,
    Pattern(
        PATH_TEXT_PATTERN,
        "must have 1 to 128 characters, without spaces, control characters and / \\ ? # %, and no dot at the beginning",
    ),
]
"""A key, in any language, that is percent-encoded in a URL's path."""
PlatformCharset = Annotated[str, Pattern(f"^{LABEL}$", "must be the name of a charset, such as UTF-8 or GB18030")]
"""Sent to the platform unchanged: no document lists the allowed values."""
SectionName = Annotated[
    str, Pattern(r"^[A-Za-z0-9_-]{1,64}$", "must have 1 to 64 characters: letters, digits, _ and -")
]
"""The name of a connection or a sink in the configuration."""
Seconds = Annotated[float, Field(ge=0.001, le=30 * 86400, allow_inf_nan=False)]
BaseTime = Annotated[
    str,
    Pattern(
        r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}$",
        "must be a date and time such as 2026-11-22 00:00:00",
    ),
    AfterValidator(_real_time),
]
"""Sensors Data: the time of one partition of a user group (user-group document)."""


def _real_utc_time(text: str) -> str:
    try:
        datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:
        raise ValueError("must be an existing date and time") from None
    return text


UtcTime = Annotated[
    str,
    Pattern(
        r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$",
        "must be a date and time in UTC such as 2026-11-21T16:00:00Z",
    ),
    AfterValidator(_real_utc_time),
]
"""Sensors Data, Horizon: the time of one version of a segment or tag (documents of segments and tags)."""
PositiveId = Annotated[int, Field(gt=0, le=2**63 - 1)]
TrimmedName = Annotated[Name, BeforeValidator(lambda value: value.strip() if isinstance(value, str) else value)]
"""A name without the blanks around it. A sample of ThinkingData's document has one before a name."""
