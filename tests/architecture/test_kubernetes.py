"""The Kubernetes manifests: as the real kustomize builds them, valid in two versions, honest and restricted."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # comes with moto; its stubs are not among our tools
from kubernetes_validate import SchemaNotFoundError, ValidationError, validate

from export_worker.config import load_config
from export_worker.telemetry.metrics import Metrics
from support.deployment import OWN_IMAGE, blocks, check_settings, instructions, parsed, read
from support.manifests import DEPLOYMENTS, K8S, built, config_text, container, kustomized, of_kind, pod
from support.paths import ROOT

VERSIONS = ("1.33", "1.36")
BUILDS = ("base", "overlays/dev", "overlays/production")
STOP_S = 25
"""What any process of ours needs to stop, at most."""
IDLE_MIB = 110
"""Of a worker that has done some exports (measured)."""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("build", BUILDS)
def test_every_manifest_is_valid(build: str, version: str) -> None:
    for item in built(build):
        if item["apiVersion"].startswith("keda.sh/"):
            with pytest.raises(SchemaNotFoundError):
                validate(item, version, strict=True)
        else:
            validate(item, version, strict=True)


@pytest.mark.parametrize("build", ["overlays/dev", "overlays/production"])
def test_everything_is_in_the_namespace(build: str) -> None:
    places = {item["metadata"].get("namespace") for item in built(build) if item["kind"] != "Namespace"}
    assert places == {"export-worker"}


def test_a_wrong_field_is_seen() -> None:
    item = of_kind("base", "Deployment")["control"]
    with pytest.raises(ValidationError):
        validate(item | {"spec": item["spec"] | {"replica": 2}}, VERSIONS[0], strict=True)


def test_scaled_objects_are_what_keda_takes_and_ask_for_metrics_that_there_are() -> None:
    # Here alone: its models take seconds and hundreds of MiB, which every test process would pay for.
    from cloudcoil.models.keda.v1alpha1 import ScaledObject

    scaled = of_kind("overlays/production", "ScaledObject")
    assert set(scaled) == {"control", "transfer"}
    for item in scaled.values():
        # A field that KEDA does not know would be dropped without a word.
        assert ScaledObject.model_validate(item).model_dump(by_alias=True, exclude_unset=True, mode="json") == item
        for trigger in item["spec"]["triggers"]:
            assert trigger["metadata"]["valueLocation"].partition("{")[0] in Metrics().names()
        assert item["spec"]["scaleTargetRef"]["name"] in of_kind("overlays/production", "Deployment")


def test_the_plain_autoscalers_are_valid() -> None:
    for item in yaml.safe_load_all(read("k8s/components/hpa/autoscalers.yaml")):
        for version in VERSIONS:
            validate(item, version, strict=True)
        assert item["spec"]["scaleTargetRef"]["name"] in DEPLOYMENTS


def test_the_adapter_is_told_to_take_one_worker_s_word_for_the_whole_namespace() -> None:
    (block,) = blocks("k8s/README.md", "yaml")
    (rule,) = yaml.safe_load(block)["externalRules"]
    metrics = [
        metric["external"]["metric"]
        for item in yaml.safe_load_all(read("k8s/components/hpa/autoscalers.yaml"))
        for metric in item["spec"]["metrics"]
        if metric["type"] == "External"
    ]
    for metric in metrics:
        assert rule["seriesQuery"] == f'{{__name__="{metric["name"]}"}}'
        # A sum would grow with each worker that it starts.
        by = ", ".join(metric["selector"]["matchLabels"])
        assert rule["metricsQuery"] == f"max by ({by}) (<<.Series>>{{<<.LabelMatchers>>}})"
        assert metric["name"] in Metrics().names()
    assert metrics


def test_the_pod_monitor_is_what_the_operator_takes_and_finds_every_pod(tmp_path: Path) -> None:
    from cloudcoil.models.prometheus_operator.v1 import PodMonitor

    overlay = tmp_path / "kustomization.yaml"
    parts = {"resources": ["overlays/production"], "components": ["components/prometheus"]}
    told = {name: [os.path.relpath(K8S / each, tmp_path.resolve()) for each in found] for name, found in parts.items()}
    overlay.write_text(yaml.safe_dump(told | {"namespace": "export-worker"}), encoding="utf-8")
    (item,) = [item for item in kustomized(tmp_path.resolve()) if item["kind"] == "PodMonitor"]
    assert item["metadata"]["namespace"] == "export-worker"
    # A field that the operator does not know would be dropped without a word.
    assert PodMonitor.model_validate(item).model_dump(by_alias=True, exclude_unset=True, mode="json") == item
    ports = {endpoint["port"] for endpoint in item["spec"]["podMetricsEndpoints"]}
    for name in DEPLOYMENTS:
        labels = of_kind("base", "Deployment")[name]["spec"]["template"]["metadata"]["labels"]
        assert item["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert len([port for port in container(name)["ports"] if port["name"] in ports]) == 1, "scraped once"


def test_the_rules_become_what_the_operator_takes() -> None:
    from cloudcoil.models.prometheus_operator.v1 import PrometheusRule

    (command,) = blocks("k8s/README.md", "sh")
    made, _, applied = command.rpartition(" | ")
    assert applied == "kubectl --namespace export-worker apply --filename -\n"
    printed = subprocess.run(["sh", "-c", made], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    item = yaml.safe_load(printed)
    assert PrometheusRule.model_validate(item).model_dump(by_alias=True, exclude_unset=True, mode="json") == item
    assert item["spec"] == yaml.safe_load(read("k8s/monitoring/alerts.yaml"))


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_prometheus_without_the_operator_finds_every_pod_once(name: str) -> None:
    (job,) = yaml.safe_load(read("k8s/monitoring/prometheus.yaml"))["scrape_configs"]
    assert job["kubernetes_sd_configs"] == [{"role": "pod", "namespaces": {"names": ["export-worker"]}}]
    label, port, _ = job["relabel_configs"]
    labels = of_kind("base", "Deployment")[name]["spec"]["template"]["metadata"]["labels"]
    assert re.fullmatch(label["regex"], labels["app.kubernetes.io/name"])
    assert len([each for each in container(name)["ports"] if re.fullmatch(port["regex"], each["name"])]) == 1


def test_a_namespace_of_one_s_own_is_where_keda_asks(tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    overlay = tmp_path / "k8s/overlays/production"
    file = overlay / "kustomization.yaml"
    text = file.read_text(encoding="utf-8").replace("namespace: export-worker\n", "namespace: another\n", 1)
    file.write_text(text, encoding="utf-8")
    scaled = [item for item in kustomized(overlay) if item["kind"] == "ScaledObject"]
    urls = {trigger["metadata"]["url"] for item in scaled for trigger in item["spec"]["triggers"]}
    assert urls == {"http://control.another.svc:9100/metrics"}


def test_every_file_is_used() -> None:
    folders = [K8S / "base", K8S / "overlays/dev", K8S / "overlays/production", *(K8S / "components").iterdir()]
    for folder in folders:
        told = (folder / "kustomization.yaml").read_text(encoding="utf-8")
        unused = [path.name for path in folder.iterdir() if path.name not in told and path.name != "kustomization.yaml"]
        assert unused == [], folder


def test_only_dev_carries_a_secret_and_that_has_words_of_simulators_alone() -> None:
    assert not of_kind("base", "Secret")
    assert not of_kind("overlays/production", "Secret")
    assert set(of_kind("overlays/dev", "StatefulSet")) == {"redis"}


def test_the_redis_of_development_keeps_what_it_is_given_and_refuses_before_the_kernel_ends_it() -> None:
    (only,) = of_kind("overlays/dev", "StatefulSet")["redis"]["spec"]["template"]["spec"]["containers"]
    options = dict(zip(only["args"][1::2], only["args"][2::2], strict=True))
    assert (options["--appendonly"], options["--maxmemory-policy"]) == ("yes", "noeviction")
    limit_mib = int(only["resources"]["limits"]["memory"].removesuffix("Mi"))
    assert 1.5 * int(options["--maxmemory"].removesuffix("mb")) <= limit_mib


@pytest.mark.parametrize("build", BUILDS)
def test_the_settings_are_understood(build: str, tmp_path: Path, clean_environment: pytest.MonkeyPatch) -> None:
    file = tmp_path / "export-worker.toml"
    file.write_text(config_text(build), encoding="utf-8")
    clean_environment.setenv("GIO_TOKEN", "word")
    config = load_config(str(file))
    check_settings(config)
    assert config.platforms() == {"gio": "growingio"}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_commands_are_real(name: str) -> None:
    args = container(name)["args"]
    assert "command" not in container(name)
    assert parsed(args).command.name == args[0]
    if args[0] == "run":
        assert parsed(args).params["role"] == name
    if args[0] == "trigger":
        assert args[1] in tomllib.loads(config_text("overlays/production"))["triggers"]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_pods_get_the_file_and_every_secret(name: str) -> None:
    found = container(name)
    sources = {item["name"]: item["valueFrom"]["secretKeyRef"] for item in found["env"] if "valueFrom" in item}
    place = Path(next(item["value"] for item in found["env"] if item["name"] == "EXPORT_CONFIG"))
    mounted = {item["mountPath"]: item["name"] for item in found["volumeMounts"]}
    volume = next(item for item in pod(name)["volumes"] if item["name"] == mounted[str(place.parent)])
    assert volume["configMap"]["name"] in of_kind("overlays/production", "ConfigMap")
    assert instructions("WORKDIR")[-1] == [str(place.parent)]
    wanted = {"GIO_TOKEN", "GATEWAY_KEY"} if name == "gateway" else {"GIO_TOKEN"}
    assert {variable for variable, source in sources.items() if not source.get("optional")} == wanted
    for source in sources.values():
        assert f"generic {source['name']} " in read("k8s/README.md")
        assert f"--from-file={source['key']}=" in read("k8s/README.md")


@pytest.mark.parametrize(
    ("build", "name"),
    [(build, name) for build in ("overlays/dev", "overlays/production") for name in of_kind(build, "Deployment")],
)
def test_pods_are_restricted(build: str, name: str) -> None:
    found = pod(name, build)
    assert found["automountServiceAccountToken"] is False
    assert found["securityContext"]["runAsNonRoot"] is True
    assert found["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(name, build)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (
        f"{found['securityContext']['runAsUser']}:{found['securityContext']['runAsGroup']}"
        == instructions("USER")[-1][0]
    )


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_pods_are_asked_how_they_are(name: str) -> None:
    found = container(name)
    ports = {item["name"] for item in found["ports"]}
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert found[probe]["httpGet"]["path"] == path
        assert found[probe]["httpGet"]["port"] in ports


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_pods_have_room_and_time(name: str) -> None:
    settings = tomllib.loads(config_text("overlays/production"))
    assert pod(name)["terminationGracePeriodSeconds"] > STOP_S > settings["worker"]["drain_s"]
    resources = container(name)["resources"]
    assert set(resources["requests"]) == set(resources["limits"]) == {"cpu", "memory"}
    buffers_mib = settings["transfer"]["memory_mib"] if name == "transfer" else 0
    assert int(resources["limits"]["memory"].removesuffix("Mi")) >= 1.5 * (IDLE_MIB + buffers_mib)


def test_images_are_pinned_and_ours_has_one_tag() -> None:
    for build in BUILDS:
        for item in built(build):
            if item["kind"] in {"Deployment", "StatefulSet"}:
                (only,) = item["spec"]["template"]["spec"]["containers"]
                _, _, tag = only["image"].rpartition("/")[2].partition(":")
                if "export-worker" in only["image"]:
                    assert tag == OWN_IMAGE.partition(":")[2]
                    # What was built on this machine, or what a registry has.
                    assert (only["image"] == OWN_IMAGE) == (build != "overlays/production")
                else:
                    assert re.fullmatch(r"\d+\.\d+[\w.-]*@sha256:[0-9a-f]{64}", tag), only["image"]


def test_an_apply_does_not_set_back_what_an_autoscaler_has_set() -> None:
    deployments = of_kind("overlays/production", "Deployment")
    for item in of_kind("overlays/production", "ScaledObject").values():
        assert "replicas" not in deployments[item["spec"]["scaleTargetRef"]["name"]]["spec"]
    assert "replicas" in deployments["gateway"]["spec"]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_each_deployment_is_disrupted_one_pod_at_a_time(name: str) -> None:
    budget = of_kind("overlays/production", "PodDisruptionBudget")[name]["spec"]
    labels = of_kind("overlays/production", "Deployment")[name]["spec"]["template"]["metadata"]["labels"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"].items() <= labels.items()
