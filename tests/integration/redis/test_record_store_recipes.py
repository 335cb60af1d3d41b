"""Exports of a recipe at workers that do not have it, or have another version of it: no export is lost or changed."""

import json
from datetime import timedelta

import pytest

from export_producers import use_recipe
from export_worker.contract import kind_names
from export_worker.contract.request import ExportRequest
from export_worker.errors import InvalidRequestError
from export_worker.recipes.kinds import make_known
from export_worker.recipes.reading import read_recipe
from export_worker.redis.replay import Replay
from support.paths import ROOT
from support.redis_site import MANY, REFUSED, QueueSite

FILE = ROOT / "tests" / "data" / "recipes" / "lists.toml"
TEXT = FILE.read_text(encoding="utf-8")
REQUEST = json.dumps({"connection": "lists", "export": {"kind": "lists.users", "list_id": "vip"}})


@pytest.fixture(autouse=True)
def _with_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind_names, "_added", {})
    use_recipe(FILE)


def at_worker(site: QueueSite, owner: str, text: str | None) -> None:
    """Makes the next claims those of another worker, which has a recipe file with this text, or none."""
    kind_names._added.clear()
    if text is not None:
        make_known(read_recipe(text, f"{owner}.toml"))
    site.owner, site.limits = owner, {"lists": MANY}


async def test_export_waits_for_a_worker_with_its_recipe(queue_site: QueueSite) -> None:
    export_id = (await queue_site.queue.enqueue(REQUEST)).export_id
    queue_site.catch_up()
    record = await queue_site.redis.hgetall(queue_site.keys.export(export_id))
    at_worker(queue_site, "without", None)
    assert await queue_site.claim() == []
    at_worker(queue_site, "changed", TEXT.replace("fields.mode", "fields.manner"))
    assert await queue_site.claim() == []
    assert (await queue_site.queue.status(export_id)).request == json.loads(record[b"request"])
    assert await queue_site.notes(export_id) == ["accepted"]

    at_worker(queue_site, "with", TEXT)
    claimed = await queue_site.one()
    assert (claimed.export.export_id, claimed.claims) == (export_id, 1), "no worker may assume that it was submitted"
    assert claimed.export.request == ExportRequest.model_validate_json(record[b"request"])

    # The same once the worker has saved a state.
    await queue_site.submit(claimed)
    at_worker(queue_site, "without", None)
    assert await queue_site.claim() == []
    at_worker(queue_site, "with", TEXT)
    assert (await queue_site.one()).export.request.fingerprint() == claimed.export.request.fingerprint()


async def test_events_of_an_export_are_replayed_without_its_recipe(queue_site: QueueSite) -> None:
    await queue_site.queue.enqueue(REQUEST)
    queue_site.catch_up()
    at_worker(queue_site, "with", TEXT)
    await queue_site.fail(await queue_site.one(), REFUSED)
    at_worker(queue_site, "without", None)
    replay = Replay(queue_site.redis, queue_site.keys, ["stream"])
    [replayed] = await replay.since(queue_site.now - timedelta(days=1), queue_site.now, dry_run=True)
    assert replayed.sinks == ("stream",)


async def test_kind_of_another_recipe_is_refused_at_enqueue(queue_site: QueueSite) -> None:
    await queue_site.redis.hset(
        queue_site.keys.connections, mapping={"lists": "recipe:lists", "amp": "recipe:amplitude"}
    )
    with pytest.raises(InvalidRequestError) as caught:
        await queue_site.queue.enqueue(REQUEST.replace('"lists"', '"amp"'))
    [problem] = caught.value.problems
    assert problem.field == "connection"
    assert "is of platform recipe:amplitude, but lists.users needs recipe:lists" in problem.message
