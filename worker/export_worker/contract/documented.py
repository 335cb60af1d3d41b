"""Puts the docstrings of fields into the JSON Schema of a model, as descriptions.

pydantic's own `use_attribute_docstrings` reads the source of a class when the class is created, which takes a third of
the time that the configuration needs to be imported. Here the source is read when a schema is requested.
"""

import ast
import inspect
import sys
from functools import cache

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Documented(BaseModel):
    """A model whose JSON Schema describes every field that has a docstring.

    Its validator is built when it is used first: no process uses all models.
    """

    model_config = ConfigDict(defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /) -> JsonSchemaValue:
        """Adds the descriptions. pydantic calls it when a schema is requested."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in field_texts(cls).items():
            field = cls.model_fields.get(name)
            if field is not None and (key := field.alias or name) in properties:
                properties[key] = {"description": text} | properties[key]
        return schema


def field_texts(model: type[BaseModel]) -> dict[str, str]:
    """Returns the docstring of each field, by the field's name. A subclass inherits those that it does not replace."""
    texts: dict[str, str] = {}
    for parent in reversed(model.__mro__):
        texts |= _module_texts(parent.__module__).get(parent.__qualname__, {})
    return texts


@cache
def _module_texts(module: str) -> dict[str, dict[str, str]]:
    """Returns the docstrings of the fields of all classes of a module, by class and field."""
    try:
        source = inspect.getsource(sys.modules[module])
    except (OSError, TypeError):
        return {}
    return {node.name: _texts(node) for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}


def _texts(node: ast.ClassDef) -> dict[str, str]:
    """Returns the docstrings below the fields of a class. A line end within a paragraph becomes a space."""
    found = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        match below:
            case ast.Expr(value=ast.Constant(value=str() as text)):
                paragraphs = inspect.cleandoc(text).split("\n\n")
                found[field.target.id] = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
            case _:
                pass
    return found
