"""Renders the Helm chart with Helm's own engine, for the tests that compare it with the manifests of kustomize."""

import json
import subprocess
import sys
from collections.abc import Mapping
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


class ChartRefusedError(Exception):
    """Helm refuses the values, or a template fails."""


def rendered(values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Returns the objects that `helm install` would make. The values replace those of `values.yaml`.

    Helm runs in a process of its own, because its library starts threads and sets signal handlers.

    Raises:
        ChartRefusedError: Helm's linter or its engine reports an error.
    """
    command = [sys.executable, "-c", _HELM, str(CHART)]
    done = subprocess.run(command, input=json.dumps(values or {}), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ChartRefusedError(done.stderr)
    report, files = json.loads(done.stdout)
    if report["errors"]:
        raise ChartRefusedError(report["errors"])
    documents = (item for name, text in files.items() if name.endswith(".yaml") for item in yaml.safe_load_all(text))
    return [item for item in documents if item]
