"""The number of users that a page of GrowingIO's REST API states."""

import math
from typing import Any

import pytest

from export_worker.platforms.growingio_rest.entities import users_of


@pytest.mark.parametrize(
    ("page", "users"),
    [
        ({"totalCount": 1203.0}, 1203),
        ({"totalCount": 0}, 0),
        ({"totalCount": -1}, None),
        ({"totalCount": True}, None),
        ({"totalCount": "7"}, 7),
        ({"totalCount": math.nan}, None),
        ({"totalCount": math.inf}, None),
        ({"totalCount": "1203.0"}, 1203),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_number_of_users_is_read_as_the_platform_writes_it(page: Any, users: int | None) -> None:
    assert users_of(page) == users
