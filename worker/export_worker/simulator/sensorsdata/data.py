"""What Sensors Data has in the simulator: user groups, and users with values that are hard to carry."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

PROJECT = "default"

LATEST = "2019-03-05 00:00:00"
"""The newest base time of every group."""

BEFORE = ("2019-03-05 00:10:00", "2019-03-05 00:12:30")
"""Begin and end of what was computed before anybody asked: of the same base time that is computed anew."""


@dataclass(frozen=True, slots=True)
class UserGroup:
    """One user group. `computed` says whether there is a result from before."""

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
    """Everything that decides who belongs to a group now.

    Args:
        seed: Members of different seeds differ.
        count: How many there are.
    """

    seed: str
    count: int


def users_of(members: Members) -> Iterator[dict[str, Any]]:
    """The members in the order of their ids, which begin below zero and do not fit a double at their end."""
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
