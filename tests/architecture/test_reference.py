"""The reference page and the schema of the settings are current, and an editor that uses the schema finds mistakes."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from export_worker.platforms.registry import installed_platforms, settings_models
from export_worker.platforms.settings import ConnectionSettings
from export_worker.schemas.documents import text_of
from export_worker.schemas.settings import settings_schema
from support.deployment import blocks, read

KEPT = {"reference": "worker/REFERENCE.md", "config": "worker/export-worker.schema.json"}
SCHEMA = settings_schema()
CHECK = jsonschema_rs.Draft202012Validator(SCHEMA)
CONNECTION = 'platform = "growingio"\nbase_url = "https://x.example"\ntoken = "t"\n'


@pytest.mark.parametrize("document", KEPT)
def test_kept_file_is_current(document: str) -> None:
    assert read(KEPT[document]) == f"{text_of(document)}\n", "run `make reference`"


def test_schema_is_a_valid_schema() -> None:
    jsonschema_rs.meta.validate(SCHEMA)


def test_example_begins_with_its_schema_and_fits_it() -> None:
    example, *_ = blocks("worker/OPERATING.md", "toml")
    (path,) = re.findall(r"\A#:schema (\S+)\n", example)
    assert f"export-worker schema config > {path.removeprefix('./')}" in read("worker/OPERATING.md")
    CHECK.validate(tomllib.loads(example))


@pytest.mark.parametrize("path", ["k8s/base/export-worker.toml", "k8s/overlays/dev/export-worker.toml"])
def test_configuration_of_a_deployment_fits_the_schema(path: str) -> None:
    CHECK.validate(tomllib.loads(read(path)))


@pytest.mark.parametrize(
    "text",
    [
        f"[connections.gio]\n{CONNECTION}auth_scheme = 'Bearer'",
        "[connections.other]\nplatform = 'of-a-package'\nbase_url = 'https://x.example'\nits_own = 1",
        "[sinks.stream]\nstream = 'without-a-type'",
        "[worker]\nlease_s = 3",
    ],
)
def test_right_settings_fit_the_schema(text: str) -> None:
    CHECK.validate(tomllib.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("namespase = 'x'", id="misspelt setting"),
        pytest.param("[s3]\nbuckte = 'x'", id="misspelt setting of a section"),
        pytest.param("[s3]\npart_size_mib = 4", id="below its limit"),
        pytest.param("[worker]\nlease_s = 1", id="shorter than a lease may be"),
        pytest.param("[worker]\ncontrol_steps = '50'", id="text for a number"),
        pytest.param(f"[connections.gio]\n{CONNECTION}page_rows = 1000", id="option of another platform"),
        pytest.param("[connections.gio]\nplatform = 'growingio'", id="without a required setting"),
        pytest.param(f"[connections.'g/o']\n{CONNECTION}", id="name with a slash"),
        pytest.param("[sinks.x]\ntype = 'mail'", id="unknown type"),
    ],
)
def test_wrong_settings_do_not_fit_the_schema(text: str) -> None:
    assert not CHECK.is_valid(tomllib.loads(text))


def test_every_driver_of_this_package_names_its_settings() -> None:
    models = settings_models()
    assert sorted(models) == installed_platforms()
    assert all(model is not ConnectionSettings for model in models.values())


def test_schema_of_the_settings_is_printed_without_the_packages_of_a_worker(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules |= dict.fromkeys(['aiohttp', 'boto3', 'structlog', 'prometheus_client']);"
        "sys.argv = ['export-worker', 'schema', 'config']; from export_worker.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    assert printed["properties"].keys() == SCHEMA["properties"].keys()
    wrong = {"connections": {"x": {"platform": "growingio"}}}
    assert not jsonschema_rs.Draft202012Validator(printed).is_valid(wrong)
