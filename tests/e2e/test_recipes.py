"""An export of a recipe file, from the command line through a real worker; its API is played."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from export_worker.platforms.conformance.harness import serve_simulator
from export_worker.platforms.recipe_check.samples import SECRETS, export_of
from export_worker.platforms.recipe_check.server import PREFIX, PlayedApi
from export_worker.recipes.reading import read_recipe
from export_worker.simulator import World
from export_worker.simulator.files import content
from support.paths import ROOT
from support.worker_site import FAST_POLL, Site

FILE = ROOT / "tests" / "data" / "recipes" / "lists.toml"
EXPORT = {"kind": "lists.users", "list_id": "vip"}


@pytest.fixture
async def played(site: Site) -> AsyncIterator[tuple[Site, World]]:
    """A site with one connection to the API of the recipe, and one to another recipe."""
    recipe = read_recipe(FILE.read_text(encoding="utf-8"), FILE.name)
    api = PlayedApi(recipe, "users", export_of(recipe, "users"), {"region": "eu"})
    async with serve_simulator(api.register) as simulator:
        simulator.world.scenario = simulator.world.scenario.model_copy(update={"stage_s": 0.05})
        connections = {
            "lists": {
                "platform": "recipe",
                "recipe": str(FILE),
                "base_url": simulator.url + PREFIX,
                "token": SECRETS["token"],
                "requests_per_second": 1000.0,
                "poll": FAST_POLL,
            },
            "cohorts": {"platform": "recipe", "recipe": "amplitude", "api_key": "k", "client_secret": "s"},
        }
        yield replace(site, settings={"connections": connections}), simulator.world


async def test_export_of_a_recipe_file_lands(played: tuple[Site, World]) -> None:
    site, world = played
    request = json.dumps({"connection": "lists", "export": EXPORT})
    accepted = json.loads((await asyncio.to_thread(site.command, "enqueue", "-", "--json", stdin=request)).stdout)
    worked = await asyncio.to_thread(site.command, "run", "--burst")
    listed = json.loads((await asyncio.to_thread(site.command, "list", "--kind", "lists.users", "--json")).stdout)

    assert worked.status == 0, worked
    [status] = listed
    assert (status["export_id"], status["phase"]) == (accepted["export_id"], "succeeded"), status
    [stored], [job] = status["objects"], list(world.jobs)
    assert stored["file_name"] == "vip.csv"
    assert site.objects()[stored["key"]] == b"".join(content(job.files[0].spec))


async def test_kind_of_another_recipe_is_refused_before_it_is_enqueued(played: tuple[Site, World]) -> None:
    site, _ = played
    request = json.dumps({"connection": "cohorts", "export": EXPORT})
    refused = await asyncio.to_thread(site.command, "enqueue", "-", "--json", stdin=request)
    assert refused.status == 2
    [problem] = json.loads(refused.stdout)["error"]["fields"]
    assert problem["field"] == "connection"
    assert "is of platform recipe:amplitude, but lists.users needs recipe:lists" in problem["message"]
