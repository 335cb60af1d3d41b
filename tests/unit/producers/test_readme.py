"""The request reference in producers/README.md has every field, kind and option of the contract."""

import re

from export_worker.contract.output import Output
from export_worker.contract.parsing import parse_request
from export_worker.contract.request import ExportRequest, kind_models
from support.deployment import blocks, read

PATH = "producers/README.md"


def table_rows(heading: str) -> dict[str, str]:
    """Returns first cell → second cell of the table under a heading of the README."""
    section = read(PATH).split(f"{heading}\n")[1].split("\n#")[0]
    return dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.MULTILINE))


def test_example_request_is_valid_and_uses_every_field() -> None:
    example, *_ = blocks(PATH, "json")
    assert parse_request(example).model_fields_set == set(ExportRequest.model_fields)


def test_example_of_columns_is_valid_and_has_its_actions() -> None:
    (example,) = (parse_request(block) for block in blocks(PATH, "json") if '"columns"' in block)
    assert set((example.output.columns or {}).values()) == {"drop", "hash", "mask:1"}


def test_table_of_fields_is_complete() -> None:
    assert set(table_rows("## The export request")) == set(ExportRequest.model_fields)


def test_table_of_kinds_has_every_field_of_every_kind() -> None:
    found = {kind: set(re.findall(r"`(\w+)\??`", fields)) for kind, fields in table_rows("### Kinds of export").items()}
    expected = {
        kind: set(model.model_fields) - {"kind"}
        for kind, model in kind_models().items()
        if model.__module__.startswith("export_worker.contract.")
    }
    assert found == expected


def test_optional_fields_of_kinds_are_marked() -> None:
    for kind, fields in table_rows("### Kinds of export").items():
        required = {name for name, field in kind_models()[kind].model_fields.items() if field.is_required()}
        assert not required & set(re.findall(r"`(\w+)\?`", fields)), kind


def test_table_of_output_options_is_complete() -> None:
    names = {field.alias or name for name, field in Output.model_fields.items()}
    assert set(table_rows("### Output options")) == names
