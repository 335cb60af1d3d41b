"""The conformance suite for a recipe. What a recipe does not have is skipped with the reason."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from export_worker.contract.auth import NoAuth, OAuthAuth
from export_worker.contract.file_names import JSON_EXTENSIONS, extension_of
from export_worker.contract.kinds import OtherKind
from export_worker.credentials import Redactor
from export_worker.errors import PlatformError, StepError
from export_worker.lifecycle.observations import OperationFailed
from export_worker.platforms.base import Driver
from export_worker.platforms.conformance.harness import Step
from export_worker.platforms.conformance.suite import DriverSuite
from export_worker.platforms.recipe_check.samples import ROWS, Answers
from export_worker.platforms.recipe_check.server import PREFIX, PlayedApi
from export_worker.recipes.model import KindSpec, Recipe
from export_worker.recipes.names import PLATFORM
from export_worker.recipes.templates import expression, template
from export_worker.simulator import Fault, World


@dataclass(frozen=True)
class Target:
    """What is checked.

    Args:
        reference: Where the driver finds the recipe.
        name: The name of the kind.
        secrets: The secrets of the connection, by setting.
    """

    reference: str
    recipe: Recipe
    name: str
    export: OtherKind
    options: dict[str, Any]
    secrets: dict[str, str]

    @property
    def kind(self) -> KindSpec:
        """The part of the recipe."""
        return self.recipe.kinds[self.name]

    @property
    def is_json(self) -> bool:
        """Whether the name of the file says that it is JSON, so that a page of JSON is not recognized as an error."""
        kept = dict.fromkeys(self.kind.submit.keep, "kept")
        document = {"options": self.options, "operation_id": "1", "keep": kept, "number": 1}
        name = template(self.kind.result.name or "").text({**document, **self.export.model_dump(exclude_none=True)})
        return extension_of(name) in JSON_EXTENSIONS


class RecipeSuite(DriverSuite):
    """Checks one kind of a recipe. `suite_of` makes the class."""

    platform = PLATFORM
    target: Target

    def add_routes(self, app: web.Application) -> None:
        """Plays the API."""
        target = self.target
        PlayedApi(target.recipe, target.name, target.export, target.options).register(app)

    def build(self, base_url: str, redactor: Redactor | None = None, **settings: Any) -> Driver:
        """Builds the driver for the played API, which is below a path."""
        return super().build(base_url + PREFIX, redactor, **settings)

    async def expected_content(self, world: World, index: int) -> bytes:
        """Returns the content of the file of the last job, or that of the pages."""
        pages = self.target.kind.result.pages
        if pages is None:
            return await super().expected_content(world, index)
        if "csv" not in (pages.format, pages.source):
            return b"".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for row in ROWS)
        columns = pages.columns or tuple(ROWS[0])
        lines = [",".join(columns), *(",".join(row.get(name, "") for name in columns) for row in ROWS)]
        return "".join(f"{line}\n" for line in lines).encode()

    async def run_step(self, driver: Driver, world: World, step: Step, *faults: Fault) -> None:
        """Skips what the recipe does not have."""
        names = {fault.fault for fault in faults}
        if step == "poll" and self.target.kind.poll is None:
            pytest.skip("the recipe has no poll")
        if step == "download" and self.target.kind.result.pages is not None and "cut" in names:
            pytest.skip("the result consists of pages")
        if step == "download" and self.target.is_json and any(fault.body == "json" for fault in faults):
            pytest.skip("the file is JSON, so a page of JSON is taken for the file")
        if "echo_secret" in names and not self.secrets:
            pytest.skip("the recipe sends no secret")
        await super().run_step(driver, world, step, *faults)

    async def error_of_step(self, driver: Driver, world: World, step: Step, *faults: Fault) -> StepError:
        """Repeats a refused download: the driver asks once for another link."""
        poll = self.target.kind.poll
        is_error_page = step == "poll" and any((fault.fault, fault.body) == ("error_page", "json") for fault in faults)
        if is_error_page and poll is not None and expression(poll.stage).value({"message": "error"}) is not None:
            pytest.skip("poll.stage finds a state in every answer, so an error with status 200 is not recognized")
        if step == "download" and self.target.kind.result.links is not None:
            faults = tuple(fault.model_copy(update={"times": None}) for fault in faults)
        return await super().error_of_step(driver, world, step, *faults)

    def needs_poll(self) -> None:
        """Skips the test if the recipe has no poll."""
        if self.target.kind.poll is None:
            pytest.skip("the recipe has no poll")

    async def test_poll_of_running_job_returns_pending_every_time(self, driver: Driver, world: World) -> None:
        self.needs_poll()
        await super().test_poll_of_running_job_returns_pending_every_time(driver, world)

    async def test_poll_of_failed_job_returns_operation_failed_with_message(self, driver: Driver, world: World) -> None:
        self.needs_poll()
        if self.target.kind.poll is not None and not self.target.kind.poll.failed:
            pytest.skip("the recipe names no state of a failed job")
        world.faults.add(self.job_failure)
        submitted = await driver.submit(self.export)
        *_, last = await self.poll_until_ended(driver, submitted.operation_id)
        assert isinstance(last, OperationFailed)
        assert last.message

    async def test_poll_with_unknown_stage_returns_pending(self, driver: Driver, world: World) -> None:
        self.needs_poll()
        if not Answers(self.target.recipe, self.target.name).has_unknown_stage:
            pytest.skip("poll.stage is computed, so the check needs example.unknown")
        await super().test_poll_with_unknown_stage_returns_pending(driver, world)

    @pytest.mark.parametrize("operation_id", ["nonsense", "{}", "[1]", "a/../b?c=d#e", "下载", "x" * 300])
    async def test_poll_of_unknown_operation_id_raises_step_error(self, driver: Driver, operation_id: str) -> None:
        self.needs_poll()
        await super().test_poll_of_unknown_operation_id_raises_step_error(driver, operation_id)

    async def test_export_of_unknown_item_raises(self, driver: Driver, world: World) -> None:  # type: ignore[override]
        world.faults.add(Fault(on="submit", fault="missing"))
        with pytest.raises(StepError) as caught:
            await driver.submit(self.export)
        assert isinstance(caught.value, PlatformError)
        self.assert_no_secret_in_error(caught.value)

    async def test_catalog_lists_every_resource(self, driver: Driver) -> None:
        if not self.target.recipe.catalog:
            pytest.skip("the recipe has no catalog")
        await super().test_catalog_lists_every_resource(driver)

    async def test_slow_answers_are_awaited(self, driver: Driver, world: World) -> None:
        for on in ("submit", "poll", "download"):
            world.faults.add(Fault.model_validate({"on": on, "fault": "slow", "delay_s": 0.1}))
        ready = await self.run_until_ready(driver)
        assert await self.download(driver, ready.files[0]) == await self.expected_content(world, 0)

    async def test_expired_link_is_asked_for_again(self, driver: Driver, world: World) -> None:
        result = self.target.kind.result
        if result.links is None or (self.target.kind.poll is None and result.path is None):
            pytest.skip("the recipe asks for no links")
        ready = await self.run_until_ready(driver)
        world.faults.add(Fault(on="download", fault="missing", times=1))
        assert await self.download(driver, ready.files[0]) == await self.expected_content(world, 0)


def suite_of(target: Target) -> type[RecipeSuite]:
    """Returns the suite for one kind of a recipe."""
    is_oauth = isinstance(target.recipe.auth, OAuthAuth)
    members = {
        "target": target,
        "export": target.export,
        "unknown_export": target.export,
        "settings": {"recipe": target.reference, "options": target.options, **target.secrets},
        "secrets": () if isinstance(target.recipe.auth, NoAuth) else tuple(target.secrets.values()),
        "renews_credential": is_oauth,
        "projects": dict.fromkeys(target.recipe.catalog, "1"),
        "missing_file_errors": (StepError,),
        "__test__": True,
    }
    return type(f"Test_{target.name}", (RecipeSuite,), members)
