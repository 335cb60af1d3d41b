"""Every document that GrowingIO is sent is valid against its schema."""

from importlib.resources import files

import pytest
from graphql import FieldNode, GraphQLSchema, OperationDefinitionNode, build_schema, parse, validate

from export_worker.platforms.growingio.queries import DOCUMENTS, LISTINGS
from export_worker.platforms.http.graphql import Document
from support.paths import ROOT

REFERENCE = ROOT.parent / "shared" / "platforms" / "growingio.graphql"


@pytest.fixture(scope="module", params=["simulator", "reference"])
def schema(request: pytest.FixtureRequest) -> GraphQLSchema:
    if request.param == "simulator":
        return build_schema((files("export_worker.simulator.growingio") / "schema.graphql").read_text(encoding="utf-8"))
    if not REFERENCE.exists():
        pytest.skip(f"the schema that the simulator's was taken from is not here: {REFERENCE}")
    return build_schema(REFERENCE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_document_is_valid(document: Document, schema: GraphQLSchema) -> None:
    assert validate(schema, parse(document.text)) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_document_is_what_it_says(document: Document) -> None:
    [operation] = parse(document.text).definitions
    assert isinstance(operation, OperationDefinitionNode)
    assert operation.name is not None
    assert operation.name.value == document.name
    [field] = operation.selection_set.selections
    assert isinstance(field, FieldNode)
    assert field.name.value == document.field


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_nothing_is_written_into_a_document(document: Document) -> None:
    """Whatever varies is a variable: no argument holds a value of its own."""
    assert '"' not in document.text


def test_schema_check_can_fail(schema: GraphQLSchema) -> None:
    # `JobResult` has no error field; asking for it makes the platform refuse the whole document.
    assert validate(schema, parse("query Q($id: String!) { jobResult(id: $id) { id stage uris error { code } } }"))


def test_every_listing_is_among_the_documents() -> None:
    listed = [document for listing in LISTINGS.values() for document in (listing.of_project, listing.of_all)]
    assert all(document in DOCUMENTS for document in listed if document is not None)
    assert all(listing.of_project or listing.of_all for listing in LISTINGS.values())
