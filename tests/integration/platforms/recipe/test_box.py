"""The recipes of the box against played servers, which are made from the documentation of the APIs.

The requests on the wire are in `data/golden/recipes`. A module of `support.recipes` with a `CASE` adds a recipe.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import pytest

from export_worker.contract.request import ExportKind
from export_worker.credentials import Redactor
from export_worker.errors import AuthFailedError, PlatformError
from export_worker.lifecycle.observations import OperationFailed, Pending, Polled, Ready
from export_worker.platforms.recipe.driver import RecipeDriver
from export_worker.platforms.settings import ConnectionSettings
from export_worker.recipes.fields import kind_models
from export_worker.recipes.finding import find_recipe
from export_worker.recipes.names import box_names
from support.golden_files import check_golden
from support.paths import ROOT
from support.recipes.played import FILE_HOST, BoxCase, PlayedRecipe

POLLS_MAX = 10
MODULES = {path.stem for path in (ROOT / "tests" / "support" / "recipes").glob("*.py")}
CASES: Mapping[str, BoxCase] = {
    name: import_module(f"support.recipes.{name}").CASE for name in box_names() if name in MODULES
}
OTHERS = [(name, kind) for name, case in CASES.items() for kind in case.others]
each_recipe = pytest.mark.parametrize("name", CASES)


@asynccontextmanager
async def playing(name: str, **settings: Any) -> AsyncIterator[tuple[PlayedRecipe, RecipeDriver]]:
    """Plays the API of a recipe. Yields it, and a driver with a connection to it."""
    api = CASES[name].api()
    async with api.serve():
        port = api.url.rpartition(":")[2]
        section = {
            "platform": "recipe",
            "recipe": name,
            "base_url": api.url,
            "allow_hosts": [f"{FILE_HOST}:{port}"],
            **CASES[name].settings,
            **settings,
        }
        driver = RecipeDriver(name, ConnectionSettings.model_validate(section), Redactor())
        try:
            yield api, driver
        finally:
            await driver.close()


def export_of(name: str, fields: Mapping[str, Any], kind: str | None = None) -> ExportKind:
    """Returns an export of a kind of a recipe. Default: the kind that its case names."""
    kind = f"{name}.{kind or CASES[name].kind}"
    return kind_models(find_recipe(name))[kind].model_validate({"kind": kind, **fields})


async def run(driver: RecipeDriver, export: ExportKind) -> Polled:
    """Submits an export, and polls until its job has ended. Returns the last poll."""
    submitted = await driver.submit(export)
    for _ in range(POLLS_MAX):
        polled = await driver.poll(export, submitted.operation_id)
        if not isinstance(polled, Pending):
            return polled
    raise AssertionError(f"the job still runs after {POLLS_MAX} polls")


@each_recipe
async def test_export_has_the_bytes_of_the_api_and_sends_the_golden_requests(name: str) -> None:
    case = CASES[name]
    export = export_of(name, case.fields)
    async with playing(name) as (api, driver):
        ready = await run(driver, export)
        assert isinstance(ready, Ready)
        # Every link expires before its file is requested, so the driver asks for it again.
        api.expire_links()
        contents: dict[str, bytes] = {}
        for file in ready.files:
            async with driver.open_result(export, file) as download:
                contents[file.name] = b"".join([piece async for piece in download.chunks()])
        assert contents == case.files
        check_golden(f"recipes/{name}", {"requests": api.requests})


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.failing is not None])
async def test_failed_job_is_reported_with_the_reason_of_the_api(name: str) -> None:
    async with playing(name) as (_, driver):
        failed = await run(driver, export_of(name, CASES[name].failing or {}))
        assert isinstance(failed, OperationFailed)
        assert CASES[name].reason in failed.message


@each_recipe
async def test_refusal_is_reported_with_the_message_of_the_api(name: str) -> None:
    async with playing(name) as (_, driver):
        with pytest.raises(PlatformError) as caught:
            await run(driver, export_of(name, CASES[name].refused))
        assert CASES[name].refusal in str(caught.value)


@each_recipe
async def test_wrong_credential_is_refused(name: str) -> None:
    wrong = {key: "canary-wrong" for key in CASES[name].settings if key in {"token", "client_secret"}}
    async with playing(name, **wrong) as (_, driver):
        with pytest.raises(AuthFailedError):
            await driver.submit(export_of(name, CASES[name].fields))


@each_recipe
async def test_catalog_lists_every_page(name: str) -> None:
    case = CASES[name]
    async with playing(name) as (_, driver):
        assert set(driver.resources) == set(case.catalog)
        for resource, ids in case.catalog.items():
            assert [item[case.catalog_id] for item in await driver.catalog(resource, None)] == list(ids)


@pytest.mark.parametrize(("name", "kind"), OTHERS)
async def test_other_kind_succeeds_and_sends_the_golden_requests(name: str, kind: str) -> None:
    async with playing(name) as (api, driver):
        assert isinstance(await run(driver, export_of(name, CASES[name].others[kind], kind)), Ready)
        check_golden(f"recipes/{name}-{kind}", {"requests": api.requests})
