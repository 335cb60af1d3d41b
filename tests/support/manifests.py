"""The Kubernetes manifests as the real kustomize builds them, read for the tests that hold them."""

import base64
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # comes with moto; its stubs are not among our tools

from support.paths import ROOT

K8S = ROOT / "k8s"
PRODUCTION, DEVELOPMENT = "overlays/production", "overlays/dev"
DEPLOYMENTS = ("control", "transfer", "gateway", "trigger-segment-ready")


@cache
def built(name: str) -> list[dict[str, Any]]:
    """Everything that `kubectl apply --kustomize` would send."""
    return kustomized(K8S / name)


def kustomized(folder: Path) -> list[dict[str, Any]]:
    """What kustomize makes of a folder."""
    kubectl = Path(sys.executable).with_name("kubectl")
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def of_kind(name: str, kind: str) -> dict[str, dict[str, Any]]:
    """The objects of one kind, by name."""
    return {item["metadata"]["name"]: item for item in built(name) if item["kind"] == kind}


def pod(name: str, build: str = PRODUCTION) -> dict[str, Any]:
    """The pod of one Deployment."""
    found: dict[str, Any] = of_kind(build, "Deployment")[name]["spec"]["template"]["spec"]
    return found


def container(name: str, build: str = PRODUCTION) -> dict[str, Any]:
    """Its only container."""
    (found,) = pod(name, build)["containers"]
    return dict(found)


def config_text(build: str) -> str:
    """The settings of every pod."""
    (item,) = of_kind(build, "ConfigMap").values()
    text: str = item["data"]["export-worker.toml"]
    return text


def secret_words(build: str) -> dict[str, str]:
    """The values of the overlay's Secret, by key."""
    (item,) = of_kind(build, "Secret").values()
    return {key: base64.b64decode(value).decode() for key, value in item["data"].items()}


def variables(found: Mapping[str, Any], build: str) -> dict[str, str]:
    """A container's environment, as the kubelet would resolve it: an optional key that is not there is left out.

    `envFrom` is not used by any container of ours; it would be refused here rather than passed over.
    """
    assert "envFrom" not in found
    (secret,) = of_kind(build, "Secret")
    words = secret_words(build)
    resolved = {}
    for item in found.get("env", []):
        reference = item.get("valueFrom", {}).get("secretKeyRef")
        if reference is None:
            resolved[item["name"]] = item["value"]
        elif reference["name"] == secret and reference["key"] in words:
            resolved[item["name"]] = words[reference["key"]]
        else:
            assert reference.get("optional"), f"{item['name']}: the kubelet would not start this container"
    return resolved
