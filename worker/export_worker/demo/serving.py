"""What `demo --serve` prints: the addresses, and commands that can be pasted into another terminal."""

import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from export_worker.demo.services import CREDENTIALS, S3_CREDENTIALS, USUAL_PORTS, Services
from export_worker.demo.showcase import SECRETS

REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)
VARIABLES = ("EXPORT_CONFIG", *CREDENTIALS, *SECRETS, *S3_CREDENTIALS)
"""The variables that commands need."""

_PYTHON = """\
{python} - <<'END'
from export_producers import SyncExportQueue
with SyncExportQueue("{redis_url}") as queue:
    accepted = queue.enqueue('{request}')
    status = queue.wait(accepted.export_id)
    print(status.phase, [item.uri for item in status.objects])
END"""


@dataclass(frozen=True, slots=True)
class Installation:
    """How the commands of this installation are called in a shell, from any directory.

    Args:
        command: `export-worker`.
        python: The interpreter that has the libraries.
    """

    command: str
    python: str


def this_installation() -> Installation:
    """Returns how the running process was called. A command on the PATH needs no directory."""
    program, python = Path(sys.argv[0]).absolute(), shlex.quote(sys.executable)
    if program.name == "__main__.py":
        return Installation(f"{python} -m export_worker", python)
    on_path = shutil.which(program.name)
    on_path_itself = on_path is not None and Path(on_path).absolute() == program
    return Installation(program.name if on_path_itself else shlex.quote(str(program)), python)


def addresses(services: Services) -> dict[str, str]:
    """Returns the addresses of the services, and the directory of their logs, by name."""
    return {
        "Redis": services.redis_url,
        "S3": services.s3_url,
        "Platform": services.platform_url,
        "HTTP API": services.gateway_url,
        "Console": f"{services.gateway_url}/console/",
        "Logs": str(services.directory),
    }


def other_ports(services: Services) -> Iterator[str]:
    """Yields a sentence for each usual port that another program uses."""
    urls = {
        "redis": services.redis_url,
        "s3": services.s3_url,
        "platform": services.platform_url,
        "gateway": services.gateway_url,
    }
    for name, url in urls.items():
        if urlsplit(url).port != USUAL_PORTS[name]:
            yield f"Port {USUAL_PORTS[name]} is in use. Examples with this port do not reach the demo."


def commands(services: Services, installation: Installation) -> dict[str, str]:
    """Returns commands for a shell by a title. The first one is needed before the second one."""
    variables = shlex.join(f"{name}={services.environment[name]}" for name in VARIABLES)
    request = shlex.quote(REQUEST)
    return {
        "Commands need these variables": f"export {variables}",
        "Request an export": f"echo {request} | {installation.command} enqueue - --wait",
        "From Python": _PYTHON.format(python=installation.python, redis_url=services.redis_url, request=REQUEST),
        "Over HTTP": f"curl -s -H 'Content-Type: application/json' -d {request} {services.gateway_url}/v1/exports",
        "See the exports": f"{installation.command} list",
    }
