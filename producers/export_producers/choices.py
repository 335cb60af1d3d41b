"""What callers may choose, on the command line and in the HTTP API. Help and completion import this module."""

from typing import Literal

Language = Literal["en", "zh"]
"""The languages of texts for people: English, and Simplified Chinese."""
LANGUAGES: tuple[Language, ...] = ("en", "zh")

OPEN = "open"
"""Selects the exports that have not ended, in place of a phase."""

State = Literal["waiting", "slow"]
"""What open exports are selected by besides their phase: they wait for a slot of their connection, or they are on their
platform for longer than 95 % of the last ones of their connection and kind were."""
STATES: tuple[State, ...] = ("waiting", "slow")

LIST_MAX = 1000
"""Statuses that one call reads, so that a listing needs bounded memory."""
DEAD_LETTERS_MAX = 50
"""Dead letters that one call reads. Each has a body of up to 1 MiB in Redis."""

FILTER_MAX_CHARS = 512
"""The longest text in a filter of a listing. No name, id or key is longer."""

RESOURCES = (
    "projects",
    "tags",
    "segments",
    "funnels",
    "events",
    "retentions",
    "frequencies",
    "clusters",
    "user-groups",
    "project-tags",
)
"""What a catalog lists."""
