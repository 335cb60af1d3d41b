"""The Kubernetes manifests, built with kustomize: valid in two versions, consistent with the code, and restricted."""

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
"""The longest time that a process of this project needs to stop."""
IDLE_MIB = 110
"""The memory of a worker after some exports (measured)."""


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
def test_every_object_is_in_the_namespace(build: str) -> None:
    namespaces = {item["metadata"].get("namespace") for item in built(build) if item["kind"] != "Namespace"}
    assert namespaces == {"export-worker"}


def test_manifest_with_unknown_field_is_refused() -> None:
    item = of_kind("base", "Deployment")["control"]
    with pytest.raises(ValidationError):
        validate(item | {"spec": item["spec"] | {"replica": 2}}, VERSIONS[0], strict=True)


def test_scaled_objects_match_models_of_keda_and_use_exported_metrics() -> None:
    # Imported here: the models take seconds and hundreds of MiB, in every process that imports this file.
    from cloudcoil.models.keda.v1alpha1 import ScaledObject

    scaled = of_kind("overlays/production", "ScaledObject")
    assert set(scaled) == {"control", "transfer"}
    for item in scaled.values():
        # KEDA would silently drop an unknown field.
        assert ScaledObject.model_validate(item).model_dump(by_alias=True, exclude_unset=True, mode="json") == item
        for trigger in item["spec"]["triggers"]:
            assert trigger["metadata"]["valueLocation"].partition("{")[0] in Metrics().names()
        assert item["spec"]["scaleTargetRef"]["name"] in of_kind("overlays/production", "Deployment")


def test_horizontal_pod_autoscalers_are_valid() -> None:
    for item in yaml.safe_load_all(read("k8s/components/hpa/autoscalers.yaml")):
        for version in VERSIONS:
            validate(item, version, strict=True)
        assert item["spec"]["scaleTargetRef"]["name"] in DEPLOYMENTS


def test_metrics_adapter_takes_the_maximum_over_workers() -> None:
    documented = [yaml.safe_load(block) for block in blocks("k8s/README.md", "yaml")]
    ((rule,),) = (block["externalRules"] for block in documented if "externalRules" in block)
    metrics = [
        metric["external"]["metric"]
        for item in yaml.safe_load_all(read("k8s/components/hpa/autoscalers.yaml"))
        for metric in item["spec"]["metrics"]
        if metric["type"] == "External"
    ]
    for metric in metrics:
        assert rule["seriesQuery"] == f'{{__name__="{metric["name"]}"}}'
        # Every worker exports the same value, so a sum would grow with each worker that the autoscaler starts.
        by = ", ".join(metric["selector"]["matchLabels"])
        assert rule["metricsQuery"] == f"max by ({by}) (<<.Series>>{{<<.LabelMatchers>>}})"
        assert metric["name"] in Metrics().names()
    assert metrics


def test_pod_monitor_matches_model_of_operator_and_selects_every_pod(tmp_path: Path) -> None:
    from cloudcoil.models.prometheus_operator.v1 import PodMonitor

    overlay = tmp_path / "kustomization.yaml"
    parts = {"resources": ["overlays/production"], "components": ["components/prometheus"]}
    paths = {name: [os.path.relpath(K8S / each, tmp_path.resolve()) for each in found] for name, found in parts.items()}
    overlay.write_text(yaml.safe_dump(paths | {"namespace": "export-worker"}), encoding="utf-8")
    (item,) = [item for item in kustomized(tmp_path.resolve()) if item["kind"] == "PodMonitor"]
    assert item["metadata"]["namespace"] == "export-worker"
    # The operator would silently drop an unknown field.
    assert PodMonitor.model_validate(item).model_dump(by_alias=True, exclude_unset=True, mode="json") == item
    ports = {endpoint["port"] for endpoint in item["spec"]["podMetricsEndpoints"]}
    for name in DEPLOYMENTS:
        labels = of_kind("base", "Deployment")[name]["spec"]["template"]["metadata"]["labels"]
        assert item["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert len([port for port in container(name)["ports"] if port["name"] in ports]) == 1, "scraped twice or never"


def test_rules_made_by_documented_command_match_model_of_operator() -> None:
    from cloudcoil.models.prometheus_operator.v1 import PrometheusRule

    (command,) = blocks("k8s/README.md", "sh")
    made, _, applied = command.rpartition(" | ")
    assert applied == "kubectl --namespace export-worker apply --filename -\n"
    printed = subprocess.run(["sh", "-c", made], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    item = yaml.safe_load(printed)
    assert PrometheusRule.model_validate(item).model_dump(by_alias=True, exclude_unset=True, mode="json") == item
    assert item["spec"] == yaml.safe_load(read("k8s/monitoring/alerts.yaml"))


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_prometheus_without_operator_finds_every_pod_once(name: str) -> None:
    (scrape,) = yaml.safe_load(read("k8s/monitoring/prometheus.yaml"))["scrape_configs"]
    assert scrape["kubernetes_sd_configs"] == [{"role": "pod", "namespaces": {"names": ["export-worker"]}}]
    label, port, _ = scrape["relabel_configs"]
    labels = of_kind("base", "Deployment")[name]["spec"]["template"]["metadata"]["labels"]
    assert re.fullmatch(label["regex"], labels["app.kubernetes.io/name"])
    assert len([each for each in container(name)["ports"] if re.fullmatch(port["regex"], each["name"])]) == 1


def test_keda_scrapes_the_namespace_of_the_overlay(tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    overlay = tmp_path / "k8s/overlays/production"
    file = overlay / "kustomization.yaml"
    text = file.read_text(encoding="utf-8").replace("namespace: export-worker\n", "namespace: another\n", 1)
    file.write_text(text, encoding="utf-8")
    scaled = [item for item in kustomized(overlay) if item["kind"] == "ScaledObject"]
    urls = {trigger["metadata"]["url"] for item in scaled for trigger in item["spec"]["triggers"]}
    assert urls == {"http://control.another.svc:9100/metrics"}


def test_kustomization_names_every_file() -> None:
    folders = [K8S / "base", K8S / "overlays/dev", K8S / "overlays/production", *(K8S / "components").iterdir()]
    for folder in folders:
        text = (folder / "kustomization.yaml").read_text(encoding="utf-8")
        unused = [path.name for path in folder.iterdir() if path.name not in text and path.name != "kustomization.yaml"]
        assert unused == [], folder


def test_only_development_overlay_has_a_secret() -> None:
    assert not of_kind("base", "Secret")
    assert not of_kind("overlays/production", "Secret")
    assert set(of_kind("overlays/dev", "StatefulSet")) == {"redis"}


def test_redis_of_development_persists_data_and_is_limited_below_memory_of_its_pod() -> None:
    (only,) = of_kind("overlays/dev", "StatefulSet")["redis"]["spec"]["template"]["spec"]["containers"]
    options = dict(zip(only["args"][1::2], only["args"][2::2], strict=True))
    assert (options["--appendonly"], options["--maxmemory-policy"]) == ("yes", "noeviction")
    limit_mib = int(only["resources"]["limits"]["memory"].removesuffix("Mi"))
    assert 1.5 * int(options["--maxmemory"].removesuffix("mb")) <= limit_mib


@pytest.mark.parametrize("build", BUILDS)
def test_settings_of_manifests_load(build: str, tmp_path: Path, clean_environment: pytest.MonkeyPatch) -> None:
    file = tmp_path / "export-worker.toml"
    file.write_text(config_text(build), encoding="utf-8")
    clean_environment.setenv("GIO_TOKEN", "token")
    config = load_config(str(file))
    check_settings(config)
    assert config.platforms() == {"gio": "growingio"}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_command_of_deployment_parses(name: str) -> None:
    args = container(name)["args"]
    assert "command" not in container(name)
    assert parsed(args).command.name == args[0]
    if args[0] == "run":
        assert parsed(args).params["role"] == name
    if args[0] == "trigger":
        assert args[1] in tomllib.loads(config_text("overlays/production"))["triggers"]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_pods_get_the_settings_file_and_every_secret(name: str) -> None:
    found = container(name)
    sources = {item["name"]: item["valueFrom"]["secretKeyRef"] for item in found["env"] if "valueFrom" in item}
    file = Path(next(item["value"] for item in found["env"] if item["name"] == "EXPORT_CONFIG"))
    mounted = {item["mountPath"]: item["name"] for item in found["volumeMounts"]}
    volume = next(item for item in pod(name)["volumes"] if item["name"] == mounted[str(file.parent)])
    assert volume["configMap"]["name"] in of_kind("overlays/production", "ConfigMap")
    assert instructions("WORKDIR")[-1] == [str(file.parent)]
    wanted = {"GIO_TOKEN", "GATEWAY_KEY"} if name == "gateway" else {"GIO_TOKEN"}
    assert {variable for variable, source in sources.items() if not source.get("optional")} == wanted
    for source in sources.values():
        assert f"generic {source['name']} " in read("k8s/README.md")
        assert f"--from-file={source['key']}=" in read("k8s/README.md")


@pytest.mark.parametrize(
    ("build", "name"),
    [(build, name) for build in ("overlays/dev", "overlays/production") for name in of_kind(build, "Deployment")],
)
def test_pods_run_restricted(build: str, name: str) -> None:
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
def test_pods_have_every_probe(name: str) -> None:
    found = container(name)
    ports = {item["name"] for item in found["ports"]}
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert found[probe]["httpGet"]["path"] == path
        assert found[probe]["httpGet"]["port"] in ports


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_pods_have_memory_for_buffers_and_time_to_stop(name: str) -> None:
    settings = tomllib.loads(config_text("overlays/production"))
    assert pod(name)["terminationGracePeriodSeconds"] > STOP_S > settings["worker"]["drain_s"]
    resources = container(name)["resources"]
    assert set(resources["requests"]) == set(resources["limits"]) == {"cpu", "memory"}
    buffers_mib = settings["transfer"]["memory_mib"] if name == "transfer" else 0
    assert int(resources["limits"]["memory"].removesuffix("Mi")) >= 1.5 * (IDLE_MIB + buffers_mib)


def test_images_are_pinned_by_digest_and_own_image_by_version() -> None:
    for build in BUILDS:
        for item in built(build):
            if item["kind"] in {"Deployment", "StatefulSet"}:
                (only,) = item["spec"]["template"]["spec"]["containers"]
                _, _, tag = only["image"].rpartition("/")[2].partition(":")
                if "export-worker" in only["image"]:
                    assert tag == OWN_IMAGE.partition(":")[2]
                    # Only the production overlay pulls the image from a registry.
                    assert (only["image"] == OWN_IMAGE) == (build != "overlays/production")
                else:
                    assert re.fullmatch(r"\d+\.\d+[\w.-]*@sha256:[0-9a-f]{64}", tag), only["image"]


def test_apply_does_not_reset_replicas_of_autoscaler() -> None:
    deployments = of_kind("overlays/production", "Deployment")
    for item in of_kind("overlays/production", "ScaledObject").values():
        assert "replicas" not in deployments[item["spec"]["scaleTargetRef"]["name"]]["spec"]
    assert "replicas" in deployments["gateway"]["spec"]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_deployment_is_disrupted_one_pod_at_a_time(name: str) -> None:
    budget = of_kind("overlays/production", "PodDisruptionBudget")[name]["spec"]
    labels = of_kind("overlays/production", "Deployment")[name]["spec"]["template"]["metadata"]["labels"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"].items() <= labels.items()
