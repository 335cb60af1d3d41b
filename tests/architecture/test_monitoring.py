"""Alert rules and dashboard speak of metrics that there are, and every alert says what to do."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # comes with moto; its stubs are not among our tools

from export_worker.metrics import Metrics

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "k8s" / "monitoring"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
SUFFIXES = ("_bucket", "_count", "_sum", "_total")
GRID_COLUMNS = 24
"""Of Grafana."""


def exported() -> set[str]:
    return Metrics().names()


def used(text: str) -> set[str]:
    """Every metric of ours that an expression names, without the suffix of its kind."""
    names = set(re.findall(r"\b(?:export_worker|process)_[a-z0-9_]+", text))
    return {next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name) for name in names}


def expressions() -> list[str]:
    queries = [variable["query"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
    panels = [target["expr"] for panel in PANELS for target in panel["targets"]]
    return [*(rule["expr"] for rule in RULES), *panels, *(query["query"] for query in queries)]


def test_what_is_named_is_exported() -> None:
    found = {name for expression in expressions() for name in used(expression)}
    assert len(found) > 20
    assert found - exported() == set()


def test_what_is_exported_stands_on_the_dashboard_or_in_a_rule() -> None:
    own = {name for name in exported() if name.startswith("export_worker_")}
    assert own - {name for expression in expressions() for name in used(expression)} == set()


def test_what_is_exported_is_told_in_the_architecture_page() -> None:
    page = (ROOT / "worker" / "README.md").read_text(encoding="utf-8")
    own = {name for name in exported() if name.startswith("export_worker_")}
    assert own - used(page) == set()


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^### (\w+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert anchor == rule["alert"].lower()
    assert anchor in map(str.lower, headings)


def test_the_dashboard_has_the_shape_that_grafana_takes() -> None:
    assert DASHBOARD["schemaVersion"] >= 39
    assert DASHBOARD["uid"]
    assert "id" not in DASHBOARD, "an import gets an id of its own"
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        assert panel["type"] in {"stat", "timeseries"}
        assert panel["title"]
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert panel["datasource"]["uid"] == "${datasource}", "which data source is the reader's choice"
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= GRID_COLUMNS
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert taken.isdisjoint(cells), f"{panel['title']} covers another panel"
        taken |= cells
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    named = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(PANELS)))
    assert named - variables == {"__rate_interval"}


PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize("arguments", [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]])
def test_promtool_takes_the_rules_and_their_examples(arguments: list[str]) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], cwd=MONITORING, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
