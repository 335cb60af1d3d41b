"""The types of the values of a recipe, and the base of its models. Pure."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from export_worker.contract.model import Model
from export_worker.contract.wording import Pattern
from export_worker.recipes.templates import EXPRESSION_MAX_CHARS, checked_expression, checked_template, templates_in

DEPTH_MAX = 32
"""Tables and lists within each other in a body. APIs have a handful."""
TABLE_MAX = 64
"""Members of a table of headers, parameters or kept values."""
NAME_RULE = "must be 1 to 48 lower-case letters, digits and _, and begin with a letter"

Name = Annotated[str, Pattern(r"^[a-z][a-z0-9_]{0,47}$", NAME_RULE)]
Expression = Annotated[str, StringConstraints(min_length=1), AfterValidator(checked_expression)]
"""A JMESPath expression over an answer."""
Template = Annotated[str, AfterValidator(checked_template)]
"""A text with expressions in braces."""
Path = Annotated[
    str,
    StringConstraints(max_length=EXPRESSION_MAX_CHARS),
    Pattern(r"^/[!-\"$->@-~]*$", "must begin with / and have ASCII without blank, ? and #; parameters belong to query"),
    AfterValidator(checked_template),
]
Line = Annotated[str, Pattern(r"^[^\r\n]{1,400}$", "must be one line of at most 400 characters")]
HeaderName = Annotated[str, Pattern(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$", "must be the name of a header")]
HeaderText = Annotated[Template, Pattern(r"^[ -~]*$", "must be printable ASCII")]
Headers = Annotated[Mapping[HeaderName, HeaderText], Field(max_length=TABLE_MAX)]
Table = Annotated[Mapping[str, Template], Field(max_length=TABLE_MAX)]


def _checked_tree(tree: Any) -> Any:
    """Returns a tree of TOML whose texts are valid templates, and which JSON can express. Raises ValueError."""
    _check_values(tree, DEPTH_MAX)
    for text in templates_in(tree):
        checked_template(text)
    return tree


def _check_values(tree: Any, depth: int) -> None:
    if depth == 0:
        raise ValueError(f"must have at most {DEPTH_MAX} tables and lists within each other")
    match tree:
        case None | str() | int():
            pass
        case float():
            if not math.isfinite(tree):
                raise ValueError("must be a finite number")
        case Mapping() | list() | tuple():
            for member in tree.values() if isinstance(tree, Mapping) else tree:
                _check_values(member, depth - 1)
        case _:
            raise ValueError("must be text in quotes, not a date or time")


def _checked_parameter(value: Any) -> Any:
    """Returns a value for a query string. Raises ValueError for what it cannot have."""
    for item in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(item, str | int | float):
            raise ValueError("must be a text, a number, a boolean or a list of these")  # noqa: TRY004 - for pydantic
    return value


Tree = Annotated[Any, AfterValidator(_checked_tree)]
"""Any value of TOML. Its texts are templates."""


Query = Annotated[Mapping[str, Annotated[Tree, AfterValidator(_checked_parameter)]], Field(max_length=TABLE_MAX)]


class RecipeModel(Model):
    """Base of the models of a recipe."""

    # TOML has whole numbers where a limit allows decimals, and lists where a model has tuples.
    model_config = ConfigDict(strict=False, allow_inf_nan=False)
