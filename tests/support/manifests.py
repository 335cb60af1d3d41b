"""Builds the Kubernetes manifests with kustomize, and reads them for the tests that check them."""

import base64
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # moto installs it; its type stubs are not installed

from support.paths import ROOT

K8S = ROOT / "k8s"
PRODUCTION, DEVELOPMENT = "overlays/production", "overlays/dev"
DEPLOYMENTS = ("control", "transfer", "gateway", "trigger-segment-ready")


@cache
def built(name: str) -> list[dict[str, Any]]:
    """Returns every object that `kubectl apply --kustomize` would send."""
    return kustomized(K8S / name)


def kustomized(folder: Path) -> list[dict[str, Any]]:
    """Returns the objects that kustomize builds from a folder."""
    kubectl = Path(sys.executable).with_name("kubectl")
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def of_kind(name: str, kind: str) -> dict[str, dict[str, Any]]:
    """Returns the objects of one kind, by name."""
    return {item["metadata"]["name"]: item for item in built(name) if item["kind"] == kind}


def pod(name: str, build: str = PRODUCTION) -> dict[str, Any]:
    """Returns the pod specification of one Deployment."""
    found: dict[str, Any] = of_kind(build, "Deployment")[name]["spec"]["template"]["spec"]
    return found


def container(name: str, build: str = PRODUCTION) -> dict[str, Any]:
    """Returns the only container of the Deployment's pod."""
    (found,) = pod(name, build)["containers"]
    return dict(found)


def config_text(build: str) -> str:
    """Returns the settings file of the pods."""
    (item,) = of_kind(build, "ConfigMap").values()
    text: str = item["data"]["export-worker.toml"]
    return text


def secret_values(build: str) -> dict[str, str]:
    """Returns the values of the overlay's Secret, by key."""
    (item,) = of_kind(build, "Secret").values()
    return {key: base64.b64decode(value).decode() for key, value in item["data"].items()}


def variables(found: Mapping[str, Any], build: str) -> dict[str, str]:
    """Returns a container's environment as the kubelet resolves it. It leaves out an optional key that does not exist.

    No container uses `envFrom`. The function refuses it, because it does not resolve it.
    """
    assert "envFrom" not in found
    (secret,) = of_kind(build, "Secret")
    values = secret_values(build)
    resolved = {}
    for item in found.get("env", []):
        reference = item.get("valueFrom", {}).get("secretKeyRef")
        if reference is None:
            resolved[item["name"]] = item["value"]
        elif reference["name"] == secret and reference["key"] in values:
            resolved[item["name"]] = values[reference["key"]]
        else:
            assert reference.get("optional"), f"{item['name']}: the kubelet would not start this container"
    return resolved
