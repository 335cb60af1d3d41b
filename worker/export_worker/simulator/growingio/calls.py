"""Reads a GraphQL request before it is executed, to find the call and the target by which faults are chosen."""

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
    """The body of a GraphQL request."""

    query: str
    variables: dict[str, Any]
    operation_name: str | None

    @classmethod
    def from_body(cls, body: bytes) -> "GraphQLRequest":
        """Reads a body.

        Raises:
            GraphQLError: The body is not JSON, or not in the form of GraphQL over HTTP.
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
    """A root field of the request, with its arguments."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """The call that a request makes: a submit, a poll of a job, or a listing."""

    on: CallType
    root: RootField


def call_of(document: DocumentNode, request: GraphQLRequest) -> Call | None:
    """Returns the call that a valid document makes; None if the document does not determine one operation."""
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
    """Returns the target of a submit. Its key is made of the arguments, so that a repeated submit has the same key."""
    text = f"{root.name} {_as_text(root.arguments)}"
    return Target(key=text, text=text)


def job_target(job: Job, uri: str = "") -> Target:
    """Returns the target of a poll (key: job) or a download (key: file). The text has the submit's arguments."""
    text = f"{job.job_id} {uri} {job.call} {_as_text(job.arguments)}"
    return Target(key=f"{job.job_id} {uri}", text=text)


def _as_text(arguments: dict[str, Any]) -> str:
    """Returns the same text for equal arguments. A missing variable is no error here: the execution reports it."""
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
            case _:  # the GraphQL grammar has no other kind
                pass


def _fragment(document: DocumentNode, spread: FragmentSpreadNode) -> SelectionSetNode:
    """Returns the fragment that a spread names. Validation has checked that it exists."""
    return next(
        node.selection_set
        for node in document.definitions
        if isinstance(node, FragmentDefinitionNode) and node.name.value == spread.name.value
    )
