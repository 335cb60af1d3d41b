"""Which action applies to a column, when a file or a request tries to evade the policy of the connection."""

import pytest

from export_worker.errors import TransformError
from export_worker.transfer.transforms.column_rules import ColumnActions, ColumnPolicy, ColumnRules
from export_worker.transfer.transforms.json_columns import JsonColumns

CLOSED = ColumnPolicy(always={"phone": "drop"}, refuse_unknown=True)


@pytest.mark.parametrize(
    ("requested", "action"),
    [
        ({"*": "keep"}, None),
        ({"s*": "mask:4"}, None),
        ({"*": "hash", "s*": "keep"}, None),
        ({"*": "drop"}, "drop"),
        ({"s*": "mask"}, "mask"),
        ({"ssn": "keep"}, "keep"),
        ({"*": "keep", "ssn": "mask:4"}, "mask:4"),
    ],
)
def test_pattern_that_shows_values_names_no_unknown_column(requested: dict[str, str], action: str | None) -> None:
    assert ColumnRules(requested, CLOSED).action("ssn") == action


@pytest.mark.parametrize(
    "name", [' "phone"', '\ufeff"Phone"', "'phone' ", '"\u3000phone"\u2028', "ph\none", "phone\0", "\tphone\r"]
)
def test_quotes_and_control_characters_in_a_name_do_not_evade_the_policy(name: str) -> None:
    assert ColumnRules({}, ColumnPolicy(always={"phone": "drop"})).action(name) == "drop"


def test_wide_star_is_a_pattern() -> None:
    rules = ColumnRules({"\uff0atel": "mask"}, ColumnPolicy(always={"\uff0amail\uff0a": "drop"}))
    assert [rules.action("my_mail_2"), rules.action("mytel"), rules.missing([])] == ["drop", "mask", []]


def test_long_name_is_refused_before_patterns_are_compared_with_it() -> None:
    actions = ColumnActions(ColumnRules({"*" + "a*" * 90: "drop"}))
    with pytest.raises(TransformError, match="the name of column 7 has more than 1000 characters"):
        actions.of("a" * 1_001, 7)


def test_line_with_too_many_equal_keys_is_refused() -> None:
    transform = JsonColumns(ColumnActions(ColumnRules({"*": "drop"})))
    with pytest.raises(TransformError, match="line 1 has more than 10000 keys"):
        transform.feed(b"{" + b",".join([b'"":1'] * 10_001) + b"}\n")
