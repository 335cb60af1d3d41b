"""What a GraphQL request asks for, before it is executed: faults strike by that."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationType,
    SelectionSetNode,
    get_operation_ast,
    value_from_ast_untyped,
)

from export_worker.simulator.faults import Target
from export_worker.simulator.jobs import Job
from export_worker.simulator.scenario import CallType


@dataclass(frozen=True, slots=True)
class GraphQLRequest:
    """The body of a request."""

    query: str
    variables: dict[str, Any]
    operation_name: str | None

    @classmethod
    def from_body(cls, body: bytes) -> "GraphQLRequest":
        """Read a body.

        Raises:
            GraphQLError: Not JSON, or not of the form that GraphQL over HTTP has.
        """
        try:
            fields = json.loads(body)
        except ValueError:
            raise GraphQLError("the body must be JSON") from None
        if not isinstance(fields, dict) or not isinstance(fields.get("query"), str):
            raise GraphQLError("the body must be an object with a string `query`")
        variables, operation_name = fields.get("variables") or {}, fields.get("operationName")
        if not isinstance(variables, dict) or not isinstance(operation_name, str | None):
            raise GraphQLError("`variables` must be an object and `operationName` a string")
        return cls(fields["query"], variables, operation_name)


@dataclass(frozen=True, slots=True)
class RootField:
    """One field that the request asks of the root, with its arguments."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """What the request is about: its first submit or look at a job, or else a listing."""

    on: CallType
    root: RootField


def call_of(document: DocumentNode, request: GraphQLRequest) -> Call | None:
    """The call that a valid document makes; None when it does not say which of its operations is meant."""
    operation = get_operation_ast(document, request.operation_name)
    if operation is None:
        return None
    roots = list(_root_fields(document, operation.selection_set, request.variables))
    if operation.operation is OperationType.MUTATION and roots:
        return Call("submit", roots[0])
    for root in roots:
        if root.name == "jobResult":
            return Call("poll", root)
    return Call("list", roots[0]) if roots else None


def submit_target(root: RootField) -> Target:
    """A submit is known by its arguments, so that its repetition counts as the same."""
    text = f"{root.name} {_as_text(root.arguments)}"
    return Target(key=text, text=text)


def job_target(job: Job, uri: str = "") -> Target:
    """A look is known by its job, a download by its file, and either is found by the arguments of the submit."""
    text = f"{job.job_id} {uri} {job.call} {_as_text(job.arguments)}"
    return Target(key=f"{job.job_id} {uri}", text=text)


def _as_text(arguments: dict[str, Any]) -> str:
    """The same text for the same arguments, also where a variable is missing that execution will ask for."""
    return json.dumps(arguments, ensure_ascii=False, sort_keys=True, default=str)


def _root_fields(
    document: DocumentNode, selections: SelectionSetNode, variables: dict[str, Any]
) -> Iterator[RootField]:
    for node in selections.selections:
        match node:
            case FieldNode():
                arguments = {
                    item.name.value: value_from_ast_untyped(item.value, variables) for item in node.arguments or ()
                }
                yield RootField(node.name.value, arguments)
            case InlineFragmentNode():
                yield from _root_fields(document, node.selection_set, variables)
            case FragmentSpreadNode():
                yield from _root_fields(document, _fragment(document, node), variables)
            case _:  # the grammar has no fourth kind
                pass


def _fragment(document: DocumentNode, spread: FragmentSpreadNode) -> SelectionSetNode:
    """The fragment of a spread; validation has made sure that it is there."""
    return next(
        node.selection_set
        for node in document.definitions
        if isinstance(node, FragmentDefinitionNode) and node.name.value == spread.name.value
    )
