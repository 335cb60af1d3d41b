"""The same request for programs: as JSON, and as commands that can be pasted. Pure."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pprint import pformat
from typing import Any

from export_worker.contract.printable import dumps

DEFAULT_NAMESPACE = "exports"
LINE_CHARS = 100

_PYTHON = """\
import json, os
from export_producers import SyncExportQueue

request = {request}
with SyncExportQueue(os.environ["EXPORT_REDIS_URL"]{namespace}) as queue:
    print(queue.enqueue(json.dumps(request)).export_id)
"""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the exports of a console are requested.

    Args:
        url: The address of the gateway, without a path.
        needs_key: Whether its API needs a key, which a command takes from the variable `GATEWAY_KEY`.
        namespace: The namespace in Redis.
    """

    url: str
    needs_key: bool
    namespace: str


def snippets(request: Mapping[str, Any], origin: Origin) -> dict[str, str]:
    """Returns the ways to state a request, by the ends of the keys of their names."""
    text = dumps(request, indent=2)
    named = "" if origin.namespace == DEFAULT_NAMESPACE else f", namespace={origin.namespace!r}"
    shell = "" if origin.namespace == DEFAULT_NAMESPACE else f"EXPORT_NAMESPACE={shlex.quote(origin.namespace)} "
    key = '  -H "Authorization: Bearer $GATEWAY_KEY" \\\n' if origin.needs_key else ""
    return {
        "json": text,
        "curl": f"curl -sS {shlex.quote(f'{origin.url}/v1/exports')} \\\n{key}"
        f"  -H 'Content-Type: application/json' \\\n  --data-raw {shlex.quote(text)}",
        "python": _PYTHON.format(request=pformat(request, width=LINE_CHARS, sort_dicts=False), namespace=named),
        "shell": f"{shell}export-worker enqueue - <<'END'\n{text}\nEND",
    }
