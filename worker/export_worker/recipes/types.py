"""The types of the values of a recipe, and the base of its models. Pure."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from export_worker.contract.model import Model
from export_worker.contract.wording import Pattern
from export_worker.recipes.templates import EXPRESSION_MAX_CHARS, checked_expression, checked_template, templates_in

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
    Pattern(r"^/[^\s?#]*$", "must begin with / and have no blank, ? or #; parameters belong to query"),
    AfterValidator(checked_template),
]
Line = Annotated[str, Pattern(r"^[^\r\n]{1,400}$", "must be one line of at most 400 characters")]
HeaderName = Annotated[str, Pattern(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$", "must be the name of a header")]
Headers = Annotated[Mapping[HeaderName, Template], Field(max_length=TABLE_MAX)]
Table = Annotated[Mapping[str, Template], Field(max_length=TABLE_MAX)]


def _checked_tree(tree: Any) -> Any:
    """Returns a tree of TOML whose texts are valid templates. Raises ValueError."""
    for text in templates_in(tree):
        checked_template(text)
    return tree


Tree = Annotated[Any, AfterValidator(_checked_tree)]
"""Any value of TOML. Its texts are templates."""


class RecipeModel(Model):
    """Base of the models of a recipe."""

    # TOML has whole numbers where a limit allows decimals, and lists where a model has tuples.
    model_config = ConfigDict(strict=False, allow_inf_nan=False)
