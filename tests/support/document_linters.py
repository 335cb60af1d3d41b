"""Runs the linters of OpenAPI and AsyncAPI documents. They are packages of npm, which `.ci/run` installs."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.paths import ROOT

FOLDER = ROOT / ".venv" / "npm" / "node_modules" / ".bin"
_QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}


def find(name: str) -> str:
    """Returns the path of a linter. Skips the test if it is not installed."""
    found = shutil.which(name, path=os.pathsep.join([str(FOLDER), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip(f"{name} is not installed (npm; see .ci/run)")
    return found


def spectral_findings(document: dict[str, Any], ruleset: str, folder: Path) -> list[str]:
    """Returns the findings of Spectral, warnings and hints included, as `RULE PATH`."""
    rules, file = folder / "spectral.json", folder / "document.json"
    rules.write_text(json.dumps({"extends": [ruleset]}), encoding="utf-8")
    file.write_text(json.dumps(document), encoding="utf-8")
    ran = _run(find("spectral"), "lint", "--ruleset", str(rules), "--format", "json", "--quiet", str(file))
    return [f"{item['code']} {'.'.join(map(str, item['path']))}" for item in json.loads(ran or "[]")]


def redocly_findings(document: dict[str, Any], folder: Path) -> list[str]:
    """Returns the findings of redocly's recommended rules, warnings included, as `RULE PATH`."""
    file = folder / "document.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    found = json.loads(_run(find("redocly"), "lint", "--format", "json", str(file)))
    return [f"{item['ruleId']} {item['location'][0]['pointer']}" for item in found["problems"]]


def _run(*command: str) -> str:
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **_QUIET}
    )
    assert ran.returncode in {0, 1}, ran.stderr
    return ran.stdout
