"""States how to install a missing extra of export-worker, with a command that works where the program runs.

The command names the place from which export-worker was installed, as pip recorded it (PEP 610). It never names the
project on a package index: the name may not be registered there, or belong to other people.
"""

import json
import shlex
import shutil
import sys
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

PROJECT = "export-worker"
EXTRAS = {
    "run": "worker",
    "catalog": "worker",
    "call": "worker",
    "doctor": "worker",
    "gateway": "gateway",
    "trigger": "trigger",
    "dead-letters": "gateway",
    "recipe": "check",
    "simulate": "check",
    "demo": "demo",
}
"""The smallest extra with all packages that a command needs. The other commands need only the base install."""


def missing_package(command: str, package: str) -> str:
    """Returns the error of a command that needs a package that is not installed."""
    extra = EXTRAS.get(command, "all")
    return f"{command} needs {package}, from the extra {extra}; {how_to_install(extra)}"


def how_to_install(extra: str) -> str:
    """Returns a clause that states how to install an extra, for the end of an error."""
    arguments = what_to_install(extra, _direct_url(), Path.cwd())
    if arguments is None:
        return f"install it in a checkout of {PROJECT} with: pip install '.[{extra}]'"
    return f"install it with: {shlex.join([*_installer(), *arguments])}"


def what_to_install(extra: str, direct_url: Mapping[str, Any], here: Path) -> list[str] | None:
    """Returns the arguments of `pip install` that add an extra to an installation.

    Args:
        direct_url: From where export-worker was installed: `direct_url.json` of PEP 610. Empty for a package index.
        here: The working directory.

    Returns:
        None if the place is not recorded, or does not exist any more.
    """
    url = str(direct_url.get("url", ""))
    file = Path(url2pathname(urlsplit(url).path)) if url.startswith("file:") else None
    match direct_url:
        case {"vcs_info": {"vcs": program, "commit_id": commit}}:
            return [f"{PROJECT}[{extra}] @ {program}+{url}@{commit}"]
        case {"dir_info": info} if file and (file / "pyproject.toml").is_file():
            place = "." if file == here else str(file)
            return [*(["--editable"] if info.get("editable") else []), f"{place}[{extra}]"]
        case {"archive_info": _} if url and (file is None or file.is_file()):
            return [f"{PROJECT}[{extra}] @ {url}"]
    return None


def _direct_url() -> Mapping[str, Any]:
    try:
        recorded = metadata.distribution(PROJECT).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return {}
    content = json.loads(recorded or "{}")
    return content if isinstance(content, dict) else {}


def _installer() -> list[str]:
    """Returns the command that installs packages into the environment of this program."""
    python = Path(sys.executable)
    if find_spec("pip") is None:
        return ["uv", "pip", "install", "--python", str(python)]
    on_path = shutil.which("pip")
    if on_path and Path(on_path).parent == python.parent:
        return ["pip", "install"]
    here = Path.cwd()
    shown = python.relative_to(here) if python.is_relative_to(here) else python
    return [str(shown), "-m", "pip", "install"]
