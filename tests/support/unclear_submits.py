"""Reads from a timeline how many submits the platform may have received although no operation is known."""

import re
from collections.abc import Iterable

_SUBMITTED = re.compile(r"submitted (again )?as ")
_THIS = "may have received this submit"
_EARLIER_ONES = re.compile(r" and (\d+) earlier one\(s\); before you retry")
_EARLIER = re.compile(r"may have received (\d+) earlier submit")
_STARTED = "may have started an operation"

SUBMITS_MAX = 2
"""The submits of one start of an export, with the default `resubmit = "once"`."""


def named_submits(notes: Iterable[str]) -> int:
    """Returns how many unclear submits the notes of one export name. Several notes may name the same submit.

    The note of a lost response is not enough: what follows it (a submit, or the end) must name the lost submit as well.
    """
    total = unclear = 0
    for note in notes:
        if note.startswith(("restarted from submit", "operation failed, submit ")):
            total, unclear = total + unclear, 0
        elif _STARTED in note:
            unclear = SUBMITS_MAX
        elif note.startswith("failed") and _THIS in note:
            earlier = _EARLIER_ONES.search(note)
            unclear = 1 + int(earlier[1] if earlier else 0)
        elif earlier := _EARLIER.search(note):
            unclear = max(unclear, int(earlier[1]))
        if _SUBMITTED.search(note):
            total, unclear = total + unclear, 0
    return total + unclear
