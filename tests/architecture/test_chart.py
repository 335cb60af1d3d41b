"""The Helm chart, rendered by Helm's own engine: equal to the manifests of kustomize, documented, and checked."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # moto installs it; its type stubs are not installed
from kubernetes_validate import validate

from export_worker.config import load_config
from export_worker.egress.address_policy import SPECIAL_NETWORKS
from support.deployment import PROJECT, blocks, read
from support.helm_chart import CHART, ChartRefusedError, packaged, rendered
from support.manifests import K8S, built, kustomized

VERSIONS = ("1.33", "1.36")
OF_THE_CHART = ("app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "helm.sh/chart")
"""Labels that only Helm sets."""
PART_OF = "app.kubernetes.io/part-of"
OF_OTHERS = ("keda.sh/", "monitoring.coreos.com/")
"""Kinds that Kubernetes has no schema of. The tests of the manifests check them with the models of their makers."""
IAM_ROLE = {"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/export-worker"}
PRODUCTION = {
    "image": {"repository": "registry.example.com/export-worker"},
    "serviceAccount": {"annotations": IAM_ROLE},
    "autoscaling": {"by": "keda"},
}
CONSOLE_KEYS = [
    {"name": "oncall", "role": "operator", "key": "console-oncall"},
    {"name": "team", "role": "viewer", "key": "console-team"},
]
"""The keys of the component `console`."""
MONITORED = {"monitoring": {"podMonitor": True, "rules": True, "dashboard": True, "labels": {"release": "prometheus"}}}
NEAR = {"network": {"private": [{"cidr": "10.20.0.15/32", "port": 8443}]}}


def comparable(items: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Any]:
    """Returns the objects by kind and name, without what each of the two tools adds in its own way.

    Kustomize makes pods restart by a hash in the name of the ConfigMap, Helm by an annotation. A Namespace is not in a
    chart: `--create-namespace` makes it.
    """
    found = {}
    for original in items:
        if original["kind"] == "Namespace":
            continue
        item = json.loads(re.sub(r'"export-worker-[0-9a-z]{10}"', '"export-worker"', json.dumps(original)))
        labels = item["metadata"].pop("labels", {})
        item["metadata"]["labels"] = {key: labels[key] for key in labels if key not in {*OF_THE_CHART, PART_OF}}
        if item["kind"] == "Deployment":
            template = item["spec"]["template"]
            template["metadata"].pop("annotations", None)
            template["spec"]["containers"][0]["env"].sort(key=lambda variable: str(variable["name"]))
        found[item["kind"], item["metadata"]["name"]] = item
    return found


def component(name: str, folder: Path) -> list[dict[str, Any]]:
    """Returns the base with one component of kustomize."""
    paths = {"resources": ["base"], "components": [f"components/{name}"]}
    relative = {key: [os.path.relpath(K8S / each, folder.resolve()) for each in found] for key, found in paths.items()}
    overlay = yaml.safe_dump(relative | {"namespace": "export-worker"})
    (folder / "kustomization.yaml").write_text(overlay, encoding="utf-8")
    return kustomized(folder.resolve())


def test_chart_with_its_defaults_equals_the_base() -> None:
    assert comparable(rendered()) == comparable(built("base"))


def test_chart_for_production_equals_the_overlay() -> None:
    assert comparable(rendered(PRODUCTION)) == comparable(built("overlays/production"))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("keda", {"autoscaling": {"by": "keda"}}),
        ("hpa", {"autoscaling": {"by": "hpa", "transfer": {"min": 2}}}),
        ("prometheus", {"monitoring": {"podMonitor": True}}),
        ("console", {"console": {"keys": CONSOLE_KEYS}}),
    ],
)
def test_option_of_chart_equals_the_component(name: str, values: dict[str, Any], tmp_path: Path) -> None:
    assert comparable(rendered(values)) == comparable(component(name, tmp_path))


def test_chart_has_the_rules_and_the_dashboard() -> None:
    found = comparable(rendered(MONITORED))
    assert found["PrometheusRule", "export-worker"]["spec"] == yaml.safe_load(read("k8s/monitoring/alerts.yaml"))
    dashboard = found["ConfigMap", "export-worker-dashboard"]["data"]["export-worker.json"]
    assert dashboard == read("k8s/monitoring/dashboard.json")
    for kind in ("PodMonitor", "PrometheusRule"):
        assert found[kind, "export-worker"]["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize("values", [{}, PRODUCTION | MONITORED | NEAR, {"autoscaling": {"by": "hpa"}}])
def test_every_object_of_chart_is_valid_and_labelled(values: dict[str, Any]) -> None:
    for item in rendered(values):
        assert item["metadata"]["namespace"] == "export-worker"
        labels = item["metadata"]["labels"]
        assert labels[PART_OF] == "export-worker"
        assert labels[OF_THE_CHART[-1]] == f"export-worker-{PROJECT['project']['version']}"
        if not item["apiVersion"].startswith(OF_OTHERS):
            for version in VERSIONS:
                validate(item, version, strict=True)


def test_settings_of_pods_reach_the_deployments() -> None:
    digest = f"sha256:{'0' * 64}"
    (only,) = (
        item
        for item in rendered(
            {
                "image": {"repository": "r/e", "tag": "ignored", "digest": digest, "pullPolicy": "Always"},
                "imagePullSecrets": [{"name": "registry"}],
                "triggers": [],
                "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
                "podLabels": {"team": "data"},
                "podAnnotations": {"note": "yes"},
                "nodeSelector": {"disk": "fast"},
                "priorityClassName": "high",
                "tolerations": [{"operator": "Exists"}],
                "affinity": {"podAntiAffinity": {}},
            }
        )
        if (item["kind"], item["metadata"]["name"]) == ("Deployment", "transfer")
    )
    validate(only, VERSIONS[0], strict=True)
    pod = only["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert (container["image"], container["imagePullPolicy"]) == (f"r/e@{digest}", "Always")
    assert container["env"][-1] == {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}
    assert pod["metadata"]["labels"]["team"] == "data"
    assert pod["metadata"]["annotations"]["note"] == "yes"
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["spec"]["nodeSelector"] == {"disk": "fast"}
    assert pod["spec"]["priorityClassName"] == "high"
    assert pod["spec"]["tolerations"] == [{"operator": "Exists"}]
    assert pod["spec"]["affinity"] == {"podAntiAffinity": {}}


def test_changed_configuration_restarts_the_pods() -> None:
    def checksums(values: dict[str, Any]) -> set[str]:
        pods = [item["spec"]["template"] for item in rendered(values) if item["kind"] == "Deployment"]
        return {pod["metadata"]["annotations"]["checksum/config"] for pod in pods}

    before, after = checksums({}), checksums({"config": 'namespace = "other"\n'})
    assert (len(before), len(after)) == (1, 1)
    assert before != after


def test_configuration_may_begin_with_spaces() -> None:
    text = '  [s3]\nbucket = "b"\n'
    assert comparable(rendered({"config": text}))["ConfigMap", "export-worker"]["data"] == {"export-worker.toml": text}


def test_documented_console_has_the_keys_of_its_variables(clean_environment: pytest.MonkeyPatch) -> None:
    documented = [yaml.safe_load(block) for block in blocks("k8s/README.md", "yaml")]
    (values,) = (block for block in documented if "console" in block)
    found = {name: item for (kind, name), item in comparable(rendered(values)).items() if kind == "Deployment"}
    variables = found.pop("gateway")["spec"]["template"]["spec"]["containers"][0]["env"]
    for item in variables:
        if "GATEWAY__KEYS" in item["name"]:
            clean_environment.setenv(item["name"], item.get("value", f"key of {item['name']}"))
    keys = load_config().gateway.keys
    roles = {name: (key.role, key.connections) for name, key in keys.items()}
    assert roles == {"oncall": ("operator", None), "team": ("viewer", ("gio",))}
    assert "GATEWAY__KEYS" not in json.dumps(found)


def test_chart_contains_no_secret() -> None:
    assert [item for item in rendered(PRODUCTION | MONITORED) if item["kind"] == "Secret"] == []


def test_private_address_gets_a_policy_of_its_own() -> None:
    policy = comparable(rendered(NEAR))["NetworkPolicy", "egress-private"]
    (rule,) = policy["spec"]["egress"]
    assert rule == {"to": [{"ipBlock": {"cidr": "10.20.0.15/32"}}], "ports": [{"port": 8443}]}


def test_documented_values_and_policy_are_those_of_the_chart() -> None:
    documented = [yaml.safe_load(block) for block in blocks("k8s/README.md", "yaml")]
    (values,) = (block for block in documented if "image" in block)
    (policy,) = (block for block in documented if block.get("kind") == "NetworkPolicy")
    private = {"network": {"private": [{"cidr": "10.20.0.15/32", "port": 443}]}}
    found = comparable(rendered(values | private))
    assert found["NetworkPolicy", "egress-private"]["spec"] == policy["spec"]
    assert {("ScaledObject", "control"), ("PodMonitor", "export-worker")} <= found.keys()


def test_empty_list_of_sources_opens_nothing() -> None:
    """In a policy, a rule without sources would open its ports to every address."""
    closed = {"clients": [], "monitoringNamespaces": [], "redis": {"cidrs": [], "namespaces": []}}
    found = comparable(rendered({"network": closed}))
    assert "ingress" not in found["NetworkPolicy", "gateway"]["spec"]
    assert "ingress" not in found["NetworkPolicy", "export-worker"]["spec"]
    assert "egress" not in found["NetworkPolicy", "egress-redis"]["spec"]


def test_named_namespaces_replace_the_default_ones() -> None:
    clients = [{"team": "data"}, {"team": "web", "stage": "live"}]
    (rule,) = comparable(rendered({"network": {"clients": clients}}))["NetworkPolicy", "gateway"]["spec"]["ingress"]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": each}} for each in clients]


def test_trigger_of_any_name_gets_a_valid_deployment() -> None:
    found = comparable(rendered({"triggers": ["Segment_Ready"]}))
    deployment = found["Deployment", "trigger-segment-ready"]
    validate(deployment, VERSIONS[0], strict=True)
    assert deployment["spec"]["template"]["spec"]["containers"][0]["args"] == ["trigger", "Segment_Ready"]
    assert found["PodDisruptionBudget", "trigger-segment-ready"]


def test_packaged_chart_renders_the_same(tmp_path: Path) -> None:
    package = packaged(tmp_path)
    assert comparable(rendered(MONITORED, package)) == comparable(rendered(MONITORED))


def test_chart_without_policies_has_none() -> None:
    assert not [kind for kind, _ in comparable(rendered({"network": {"policies": False}})) if kind == "NetworkPolicy"]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replicas": 3}, "replicas"),
        ({"control": {"replica": 3}}, "replica"),
        ({"transfer": {"replicas": "many"}}, "/transfer/replicas"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        ({"autoscaling": {"by": "vpa"}}, "/autoscaling/by"),
        ({"config": ""}, "/config"),
        ({"terminationGracePeriodSeconds": 10}, "/terminationGracePeriodSeconds"),
        ({"config": " \n"}, "/config"),
        ({"image": {"repository": "registry/worker:1"}}, "/image/repository"),
        ({"image": {"tag": "a b"}}, "/image/tag"),
        ({"secret": {"name": "A_B"}}, "/secret/name"),
        ({"secret": {"variables": [{"name": "A B", "key": "a"}]}}, "/secret/variables/0/name"),
        ({"env": [{"name": "A", "value": 1}]}, "/env/0/value"),
        ({"console": {"keys": [CONSOLE_KEYS[0] | {"role": "service"}]}}, "/console/keys/0/role"),
        ({"console": {"keys": [{"name": "oncall", "role": "viewer"}]}}, "key"),
        ({"podLabels": {"app.kubernetes.io/name": "mine"}}, "app.kubernetes.io/name"),
        ({"network": {"redis": {"cidrs": ["10.0.0.1"]}}}, "/network/redis/cidrs/0"),
        ({"network": {"private": [{"cidr": "db.internal", "port": 443}]}}, "/network/private/0/cidr"),
        ({"network": {"monitoringNamespaces": [""]}}, "/network/monitoringNamespaces/0"),
        ({"control": {"resources": {"limits": {"memory": "lots"}}}}, "/control/resources/limits/memory"),
        ({"autoscaling": {"by": "keda", "control": {"min": 0}}}, "/autoscaling/control/min"),
        ({"autoscaling": {"by": "keda", "control": {"min": 5, "max": 2}}}, "autoscaling.control: max must be at least"),
        ({"autoscaling": {"by": "hpa", "transfer": {"max": 1}}}, "autoscaling.transfer: max must be at least 2, not 1"),
        ({"triggers": ["a_b", "A-b"]}, "triggers: two of them get the same Deployment"),
    ],
)
def test_wrong_value_is_refused_by_its_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ChartRefusedError, match=re.escape(named)):
        rendered(values)


def test_versions_of_chart_are_that_of_the_project() -> None:
    chart = yaml.safe_load(read("k8s/chart/Chart.yaml"))
    assert (chart["version"], chart["appVersion"]) == (PROJECT["project"]["version"],) * 2


def test_every_value_is_documented() -> None:
    """A comment is behind a value, or above the row of values that it belongs to."""
    before, text, after = re.split(
        r"^config: \|\n((?:(?:  .*)?\n)+)", read("k8s/chart/values.yaml"), flags=re.MULTILINE
    )
    assert "[worker]" in text
    documented = False
    for line in (before + after).splitlines():
        documented = "#" in line or (documented and line != "")
        assert documented or line == "" or re.fullmatch(r"\w+:", line), line


def test_schema_has_every_value() -> None:
    def check(values: Mapping[str, Any], schema: Mapping[str, Any], path: str) -> None:
        if "properties" not in schema:
            return
        assert values.keys() <= schema["properties"].keys(), path
        for name, value in values.items():
            if isinstance(value, dict):
                check(value, schema["properties"][name], f"{path}.{name}")

    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    check(yaml.safe_load(read("k8s/chart/values.yaml")), schema, "values")
    assert schema["additionalProperties"] is False


def test_policies_close_the_networks_that_the_worker_refuses() -> None:
    policy = comparable(built("base"))["NetworkPolicy", "egress-internet"]
    (rule,) = policy["spec"]["egress"]
    closed = [ip_network(each) for target in rule["to"] for each in target["ipBlock"]["except"]]
    assert sorted(map(str, closed)) == sorted(map(str, SPECIAL_NETWORKS))
    assert [target["ipBlock"]["cidr"] for target in rule["to"]] == ["0.0.0.0/0", "2000::/3"]


def test_no_policy_opens_a_port_to_every_address() -> None:
    for (kind, name), item in comparable(built("base")).items():
        if kind == "NetworkPolicy":
            assert all(rule["to"] and rule["ports"] for rule in item["spec"].get("egress", ())), name
