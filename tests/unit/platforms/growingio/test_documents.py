"""The GraphQL documents of the driver are valid against GrowingIO's schema."""

from importlib.resources import files

import pytest
from graphql import FieldNode, GraphQLSchema, OperationDefinitionNode, build_schema, parse, validate

from export_worker.platforms.growingio.queries import DOCUMENTS, LISTINGS
from export_worker.platforms.http.graphql import Document
from support.paths import DATA

REFERENCE = DATA / "platforms" / "growingio.graphql"


@pytest.fixture(scope="module", params=["simulator", "reference"])
def schema(request: pytest.FixtureRequest) -> GraphQLSchema:
    if request.param == "simulator":
        return build_schema((files("export_worker.simulator.growingio") / "schema.graphql").read_text(encoding="utf-8"))
    return build_schema(REFERENCE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_document_is_valid_against_schema(document: Document, schema: GraphQLSchema) -> None:
    assert validate(schema, parse(document.text)) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_name_and_field_are_those_of_the_text(document: Document) -> None:
    [operation] = parse(document.text).definitions
    assert isinstance(operation, OperationDefinitionNode)
    assert operation.name is not None
    assert operation.name.value == document.name
    [field] = operation.selection_set.selections
    assert isinstance(field, FieldNode)
    assert field.name.value == document.field


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_document_contains_no_literal_values(document: Document) -> None:
    """Everything that varies is a variable: no argument has a literal value."""
    assert '"' not in document.text


def test_validation_detects_unknown_field(schema: GraphQLSchema) -> None:
    # `JobResult` has no error field. The platform refuses a document that selects it.
    assert validate(schema, parse("query Q($id: String!) { jobResult(id: $id) { id stage uris error { code } } }"))


def test_every_listing_is_in_documents() -> None:
    listed = [document for listing in LISTINGS.values() for document in (listing.of_project, listing.of_all)]
    assert all(document in DOCUMENTS for document in listed if document is not None)
    assert all(listing.of_project or listing.of_all for listing in LISTINGS.values())
