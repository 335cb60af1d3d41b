"""Renders the Helm chart with Helm's own engine, for the tests that compare it with the manifests of kustomize."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # moto installs it; its type stubs are not installed

from support.paths import ROOT

CHART = ROOT / "k8s" / "chart"
_HELM = """
import json, sys
import helm_python
chart, values = sys.argv[1], json.load(sys.stdin)
report = helm_python.lint(chart, values, strict=True, namespace="export-worker")
with helm_python.Chart.load(chart) as loaded:
    json.dump([report, loaded.render(values, name="export-worker", namespace="export-worker")], sys.stdout)
"""


_PACK = """
import sys
import helm_python
with helm_python.Chart.load(sys.argv[1]) as loaded:
    print(loaded.save(sys.stdin.read()))
"""


class ChartRefusedError(Exception):
    """Helm refuses the values, or a template fails."""


def rendered(values: Mapping[str, Any] | None = None, chart: Path = CHART) -> list[dict[str, Any]]:
    """Returns the objects that `helm install` would make. The values replace those of `values.yaml`.

    Raises:
        ChartRefusedError: Helm's linter or its engine reports an error.
    """
    report, files = json.loads(_run(_HELM, chart, json.dumps(values or {})))
    if report["errors"]:
        raise ChartRefusedError(report["errors"])
    documents = (item for name, text in files.items() if name.endswith(".yaml") for item in yaml.safe_load_all(text))
    return [item for item in documents if item]


def packaged(folder: Path) -> Path:
    """Packages the chart as `helm package` does, and returns the file."""
    return Path(_run(_PACK, CHART, str(folder)).strip())


def _run(program: str, chart: Path, given: str) -> str:
    """Runs Helm in a process of its own, because its library starts threads and sets signal handlers."""
    command = [sys.executable, "-c", program, str(chart)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ChartRefusedError(done.stderr)
    return done.stdout
