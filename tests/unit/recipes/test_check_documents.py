"""Documents that `recipe check` makes from the expressions of a recipe."""

from typing import Any

import pytest

from export_worker.platforms.recipe_check.documents import NotInvertibleError, satisfying, with_value


@pytest.mark.parametrize(
    ("source", "value", "document"),
    [
        ("id", 3, {"id": 3}),
        ("@", [1], [1]),
        ('data."job id"', "a", {"data": {"job id": "a"}}),
        ("jobs[0].id", "a", {"jobs": [{"id": "a"}]}),
        ("files[].url", ["a", "b"], {"files": [{"url": "a"}, {"url": "b"}]}),
        ("files[*].url", ["a"], {"files": [{"url": "a"}]}),
        ("a.b || c", "a", {"a": {"b": "a"}}),
        ("data | id", "a", {"data": {"id": "a"}}),
    ],
)
def test_document_is_made_in_which_an_expression_finds_a_value(source: str, value: Any, document: Any) -> None:
    assert with_value(source, value) == document
    assert with_value(source, value, document) == document


@pytest.mark.parametrize("source", ["length(files)", "files[?ready].url | [0]", "`1`", "{id: id}", "keys(@)[0]"])
def test_expression_that_computes_its_value_is_refused(source: str) -> None:
    with pytest.raises(NotInvertibleError):
        with_value(source, "a")


@pytest.mark.parametrize("source", ["ok", "code == `0`", "`0` == code", "code == `0` && data.ok", "!error", "a == 'b'"])
def test_document_is_made_that_satisfies_a_condition(source: str) -> None:
    assert satisfying(source) is not None
