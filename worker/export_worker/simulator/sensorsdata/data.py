"""The data of the simulated Sensors Data: user groups, and users with values that are hard to quote or to parse."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

PROJECT = "default"

LATEST = "2019-03-05 00:00:00"
"""The latest base time of every group."""

BEFORE = ("2019-03-05 00:10:00", "2019-03-05 00:12:30")
"""Start and end of the initial computation of a group, for the base time `LATEST`. A later execution replaces it."""


@dataclass(frozen=True, slots=True)
class UserGroup:
    """One user group. `computed` states whether the group has an initial result."""

    group_id: int
    name: str
    cname: str
    computed: bool = True


GROUPS: dict[int, UserGroup] = {
    group.group_id: group
    for group in (
        UserGroup(42, "vip_users", "高价值用户"),
        UserGroup(43, "lost_users", "流失用户"),
        UserGroup(44, "fresh_users", "新分群", computed=False),
    )
}

COLUMNS = ("id", "first_id", "second_id", "name", "$city", "memo", "level", "score", "is_member")

_MEMOS = (
    "plain",
    "“弯引号”不成对”“",
    'one " alone',
    '"begins with one',
    "comma, and\ttab",
    "line\nend",
    "carriage\rreturn",
    "back\\slash 'single'",
    "",
    None,
)
_CITIES = ("北京", "上海", None, "重庆")


@dataclass(frozen=True, slots=True)
class Members:
    """Everything that determines the current members of a group.

    Args:
        seed: Different seeds give different members.
        count: The number of members.
    """

    seed: str
    count: int


def users_of(members: Members) -> Iterator[dict[str, Any]]:
    """Yields the members in the order of their ids. The first id is negative; the last one exceeds a double."""
    random = Random(members.seed)
    user_id = -(2**40)
    for number in range(members.count):
        user_id += random.randrange(1, 2**41) if number < members.count - 1 else 2**62
        yield {
            "id": user_id,
            "first_id": f"device-{random.getrandbits(48):012x}",
            "second_id": f"login-{number}" if number % 3 else None,
            "name": f"用户{number}",
            "$city": _CITIES[number % len(_CITIES)],
            "memo": _MEMOS[number % len(_MEMOS)],
            "level": number % 7,
            "score": number / 8,
            "is_member": number % 2 == 0,
        }
