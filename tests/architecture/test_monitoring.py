"""Alert rules and dashboard use metrics that exist, and every alert has a severity and a runbook entry."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # comes with moto; its stubs are not among our tools
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # comes with schemathesis

from export_producers.gateway.metrics import Metrics as GatewayMetrics
from export_producers.triggers.metrics import TriggerPages
from export_producers.triggers.redis_stream import ConsumerGroup
from export_worker.contract.redis_keys import Keys
from export_worker.redis.client import open_redis
from export_worker.telemetry.metrics import Metrics
from support.deployment import COMPOSE
from support.paths import ROOT

MONITORING = ROOT / "k8s" / "monitoring"
RECORDED_AND_ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
RULES = [rule for rule in RECORDED_AND_ALERTS if "alert" in rule]
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
SUFFIXES = ("_bucket", "_count", "_sum", "_total")
DASHBOARD_SCHEMA = json.loads((ROOT / "tests" / "data" / "dashboard.schema.json").read_text(encoding="utf-8"))
RUNBOOKS = "{{ $externalLabels.runbooks }}"
"""The start of a runbook's URL. The operator of Prometheus sets the address where this repository is published."""
GRID_COLUMNS = 24
"""The width of Grafana's grid."""


def exported() -> set[str]:
    """Returns the metrics of all three kinds of process."""
    trigger = TriggerPages("t", open_redis("redis://127.0.0.1:1/0"), Keys("exports"), ConsumerGroup("s", "g"))
    return Metrics().names() | GatewayMetrics().names() | trigger.names()


def own(names: set[str]) -> set[str]:
    """Returns the metrics of this project, without the standard metrics of a process."""
    return {name for name in names if name.startswith("export_")}


def used(text: str) -> set[str]:
    """Returns every metric of this project in an expression, without the suffix of its type."""
    names = set(re.findall(r"\b(?:export_(?:worker|gateway|trigger)|process)_[a-z0-9_]+", text))
    return {next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name) for name in names}


def panel_expressions() -> list[str]:
    return [target["expr"] for panel in PANELS for target in panel["targets"]]


def expressions() -> list[str]:
    queries = [variable["query"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
    return [
        *(rule["expr"] for rule in RECORDED_AND_ALERTS),
        *panel_expressions(),
        *(query["query"] for query in queries),
    ]


def test_every_metric_in_rules_and_dashboard_is_exported() -> None:
    found = {name for expression in expressions() for name in used(expression)}
    assert len(found) > 20
    assert found - exported() == set()


def test_every_exported_metric_is_in_a_rule_or_on_the_dashboard() -> None:
    assert own(exported()) - {name for expression in expressions() for name in used(expression)} == set()


def test_operating_page_documents_exactly_the_exported_metrics() -> None:
    page = (ROOT / "worker" / "OPERATING.md").read_text(encoding="utf-8")
    assert own(exported()) - used(page) == set()
    assert own(used(page)) - exported() == set()


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_alert_has_severity_summary_and_runbook_entry(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    page, _, anchor = rule["annotations"]["runbook_url"].removeprefix(RUNBOOKS).partition("#")
    headings = re.findall(r"^### (\w+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert anchor == rule["alert"].lower()
    assert anchor in map(str.lower, headings)


def test_every_runbook_entry_belongs_to_an_alert() -> None:
    section = (ROOT / "k8s/README.md").read_text(encoding="utf-8").partition("## Respond to alerts")[2]
    assert sorted(re.findall(r"^### (\w+)$", section, re.MULTILINE)) == sorted(rule["alert"] for rule in RULES)


def test_every_alert_has_examples_that_fire_and_that_do_not() -> None:
    tests = yaml.safe_load((MONITORING / "alerts_test.yaml").read_text(encoding="utf-8"))["tests"]
    examples = [example for test in tests for example in test["alert_rule_test"]]
    for fires in (True, False):
        shown = {example["alertname"] for example in examples if bool(example.get("exp_alerts")) == fires}
        assert {rule["alert"] for rule in RULES} - shown == set()
    # A series with a wrong name would never fire an alert, so its example would always pass.
    series = " ".join(item["series"] for test in tests for item in test["input_series"])
    assert used(series) - exported() == set()


def test_dashboard_matches_the_schema_of_grafana() -> None:
    Draft202012Validator(DASHBOARD_SCHEMA).validate(DASHBOARD)
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        area = panel["gridPos"]
        assert area["x"] + area["w"] <= GRID_COLUMNS
        cells = {
            (x, y) for x in range(area["x"], area["x"] + area["w"]) for y in range(area["y"], area["y"] + area["h"])
        }
        assert taken.isdisjoint(cells), f"{panel['title']} covers another panel"
        taken |= cells
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    named = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(PANELS)))
    assert named - variables == {"__rate_interval"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": 7},
        {"panels": [PANELS[0] | {"gridpos": PANELS[0]["gridPos"]}]},
        {"panels": [PANELS[0] | {"options": {"legend": {}}}]},
        {"panels": [PANELS[0] | {"datasource": {"type": "prometheus", "uid": "mine"}}]},
    ],
    ids=["dashboard-id", "unknown-field", "options-of-another-panel", "fixed-data-source"],
)
def test_invalid_dashboard_is_refused(wrong: dict[str, Any]) -> None:
    assert not Draft202012Validator(DASHBOARD_SCHEMA).is_valid(DASHBOARD | wrong)


PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize("arguments", [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]])
def test_promtool_accepts_rules_and_their_examples(arguments: list[str]) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], cwd=MONITORING, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize(
    "settings",
    [COMPOSE["configs"]["prometheus"]["content"], (MONITORING / "prometheus.yaml").read_text(encoding="utf-8")],
    ids=["compose", "kubernetes"],
)
def test_promtool_accepts_settings_of_prometheus(settings: str, tmp_path: Path) -> None:
    shutil.copy(MONITORING / "alerts.yaml", tmp_path)
    file = tmp_path / "prometheus.yml"
    # Debian's promtool does not support discovery by Kubernetes. The rest of the file does not depend on it.
    found = re.sub(r"kubernetes_sd_configs:\n(?: {6,}.*\n)+", "static_configs: [{targets: [localhost]}]\n", settings)
    file.write_text(found, encoding="utf-8")
    assert "runbooks" in yaml.safe_load(settings)["global"]["external_labels"]
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "check", "config", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RECORDED_AND_ALERTS)} rules found" in done.stdout


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_parses_expressions_of_panels(tmp_path: Path) -> None:
    def plain(expression: str) -> str:
        return expression.replace("$__rate_interval", "5m").replace("$connection", ".*").replace("$job", ".*")

    rules = [{"record": f"panel:{number}", "expr": plain(each)} for number, each in enumerate(panel_expressions())]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
