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
import yaml  # type: ignore[import-untyped]  # moto installs it; its type stubs are not installed

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


def test_configuration_of_the_chart_fits_the_schema() -> None:
    CHECK.validate(tomllib.loads(yaml.safe_load(read("k8s/chart/values.yaml"))["config"]))


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


WRONG = [
    pytest.param("namespase = 'x'", "'namespase' was unexpected", id="misspelt setting"),
    pytest.param("[s3]\nbuckte = 'x'", "'buckte' was unexpected", id="misspelt setting of a section"),
    pytest.param("[s3]\npart_size_mib = 4", "less than the minimum of 5", id="below its limit"),
    pytest.param("[worker]\nlease_s = 1", "less than the minimum of 3", id="shorter than a lease may be"),
    pytest.param("[worker]\ncontrol_steps = '50'", 'not of type "integer"', id="text for a number"),
    pytest.param(f"[connections.gio]\n{CONNECTION}page_rows = 1000", "'page_rows' was unexpected", id="foreign option"),
    pytest.param(
        f"[connections.gio]\n{CONNECTION}max_in_flight = 0", "less than the minimum of 1", id="common setting"
    ),
    pytest.param("[connections.gio]\nplatform = 'growingio'", '"base_url" is a required', id="no required setting"),
    pytest.param("[connections.gio]\nbase_url = 'https://x.example'", '"platform" is a required', id="no platform"),
    pytest.param(f"[connections.'g/o']\n{CONNECTION}", "'g/o' was unexpected", id="name with a slash"),
    pytest.param("[sinks.x]\ntype = 'mail'", '"mail" is not one of', id="unknown type"),
    pytest.param("[sinks.x]\nstrem = 'x'", "'strem' was unexpected", id="misspelt setting of a sink without a type"),
    pytest.param("[triggers.x]\ntype = 'sqs'", '"queue_url" is a required', id="trigger without its queue"),
    pytest.param("[triggers.x]\nstream = 's'", '"type" is a required', id="trigger without a type"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_mistake_is_found_with_the_setting_that_is_wrong(text: str, message: str) -> None:
    (found,) = [error.message for error in CHECK.iter_errors(tomllib.loads(text))]
    assert message in found


def test_editor_finds_the_schema_by_the_first_line_and_marks_the_mistake(tmp_path: Path) -> None:
    """Taplo is what editors use for TOML. They run it as a language server; here it checks files."""
    example, *_ = blocks("worker/OPERATING.md", "toml")
    (tmp_path / "export-worker.schema.json").write_text(text_of("config"), encoding="utf-8")
    checks = {}
    for name, text in (("right", example), ("wrong", example.replace('"Token"', '"Tokn"'))):
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
        command = [str(Path(sys.executable).with_name("taplo")), "lint", "--colors", "never", f"{name}.toml"]
        checks[name] = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert checks["right"].returncode == 0, checks["right"].stderr
    assert checks["wrong"].returncode == 1
    assert '"Tokn" is not one of ["Token","Bearer","raw"]' in checks["wrong"].stderr
    assert re.search(r"^ *\d+ │ auth_scheme", checks["wrong"].stderr, re.MULTILINE)


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
