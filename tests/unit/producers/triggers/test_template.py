"""Templates: expressions, types, missing values, and the errors for invalid templates."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_producers.triggers.template import Template, TemplateError
from export_worker.errors import ConfigError

EVENT = {"id": "7", "data": {"segment": "qgQMXnD3", "n": 42, "flag": True, "names": ["a", "b"], "none": None}}

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)
plain_text = st.text().filter(lambda text: "{" not in text and "}" not in text)
plain_trees = st.recursive(
    plain_text | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def rendered(text: Any, event: dict[str, Any] | None = None) -> Any:
    return Template("t", {"x": text}).render(EVENT if event is None else event).get("x")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{data.segment}", "qgQMXnD3"),
        ("{data.n}", 42),
        ("{data.flag}", True),
        ("{data.names}", ["a", "b"]),
        ("seg-{data.segment}", "seg-qgQMXnD3"),
        ("{data.segment}/{data.n}", "qgQMXnD3/42"),
        ("{data.flag}!", "true!"),
        ("{data.missing || 'default'}", "default"),
        ("{join('+', data.names)}", "a+b"),
        ("{data.{a: n}}", {"a": 42}),
        ("{data.{a: n}.a}", 42),
        ("{'}'}{data.n}", "}42"),
        ('{data."names"[0]}', "a"),
        ("{to_number('5')}", 5),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_expressions_are_evaluated(text: str, value: Any) -> None:
    found = rendered(text)
    assert found == value
    assert type(found) is type(value)


def test_field_whose_expression_finds_nothing_is_left_out() -> None:
    template = Template("t", {"a": "{data.missing}", "b": "{data.none}", "c": None, "d": {"e": "{data.missing}"}})
    assert template.render(EVENT) == {"c": None, "d": {}}


@pytest.mark.parametrize(
    "text", ["a{data.missing}", "a{data.names}", "a{data}", "{abs(data.segment)}", "{data.segment < `3`}"]
)
def test_value_that_cannot_become_text_is_refused_with_the_expression(text: str) -> None:
    with pytest.raises(TemplateError, match=r"\{(data|abs)"):
        rendered(text)


def test_error_of_a_function_names_the_type_and_not_the_value() -> None:
    with pytest.raises(TemplateError) as caught:
        rendered("{abs(data.segment)}")
    assert str(caught.value).endswith("abs() expects number, and the value is of the type string")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{data", "an opening brace has no closing brace"),
        ("data}", "a closing brace has no opening brace"),
        ("{a}}", "a closing brace has no opening brace"),
        ("{'}", "an opening brace has no closing brace"),
        ("{}", "is not a JMESPath expression"),
        ("{data..n}", "is not a JMESPath expression"),
    ],
)
def test_invalid_template_is_refused_with_the_setting(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=r"triggers\.x\.request\.export\.kind: ") as caught:
        Template("triggers.x.request", {"export": {"kind": text}})
    assert expected in str(caught.value)


@given(tree=st.dictionaries(st.text(), plain_trees, max_size=4), event=st.dictionaries(st.text(), values))
def test_template_without_expressions_is_unchanged(tree: dict[str, Any], event: dict[str, Any]) -> None:
    assert Template("t", tree).render(event) == tree


@given(value=values)
def test_single_expression_keeps_value_and_type(value: Any) -> None:
    found = rendered("{data.v}", {"data": {"v": value}})
    assert json.dumps(found) == json.dumps(value)


@given(before=plain_text, value=st.text() | st.integers() | st.booleans(), after=plain_text)
def test_expression_inside_text_becomes_text(before: str, value: Any, after: str) -> None:
    found = rendered(f"_{before}{{data.v}}{after}", {"data": {"v": value}})
    middle = value if isinstance(value, str) else json.dumps(value)
    assert found == f"_{before}{middle}{after}"


@given(text=st.text(alphabet="{}'\"`\\ab.[]*|&@", max_size=20), value=values)
def test_arbitrary_template_is_rendered_or_refused_with_a_reason(text: str, value: Any) -> None:
    try:
        template = Template("t", {"x": text})
    except ConfigError:
        return
    try:
        template.render({"a": value})
    except TemplateError:
        return
