"""Checks the table of operations of a driver for inconsistent entries."""

import re
from collections.abc import Iterator

from export_worker.platforms.operations import Operation, Parameter


def problems_of(name: str, operation: Operation) -> Iterator[str]:
    """Yields the problems of one entry of the table; `name` is its key."""
    names = [parameter.name for parameter in operation.parameters]
    locations = [(parameter.name, parameter.location) for parameter in operation.parameters]
    in_path = sorted(parameter.name for parameter in operation.parameters if parameter.location == "path")
    groups = (*operation.one_of, *operation.any_of)
    checks = {
        "has another name than its key": operation.name == name,
        "has no description": bool(operation.about),
        "has an unknown method": operation.method in {"GET", "POST", "PUT", "PATCH", "DELETE"},
        "has a path without a leading slash": operation.path.startswith("/"),
        "has a path with other parameters than the table": sorted(re.findall(r"\{([^}]*)\}", operation.path))
        == in_path,
        "lists a parameter twice": len(locations) == len(set(locations)),
        "is a GET with a body": operation.method != "GET" or operation.body == "none",
        "is a DELETE without `deletes`": operation.method != "DELETE" or operation.deletes,
        "has a group with an unknown parameter": all(set(group) <= set(names) for group in groups),
        "has a group of one parameter": all(len(group) > 1 for group in groups),
        "has an invalid pattern": all(map(_compiles, operation.parameters)),
    }
    return (f"{name}: {problem}" for problem, is_right in checks.items() if not is_right)


def _compiles(parameter: Parameter) -> bool:
    try:
        re.compile(parameter.pattern or "")
    except re.error:
        return False
    return True
