"""Everything that is left of a chaos run, read once: records, timelines, events, objects, uploads and logs."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.load import Accepted
from chaos.services import Delivery, Services
from export_worker.contract.event import Event
from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Status
from export_worker.redis.client import close_redis, open_redis
from export_worker.redis.records import read_fields
from support import leftovers
from support.worker_site import Site

READERS = 8


@dataclass
class Evidence:
    """What is left of a run.

    Args:
        exports: Every accepted export by its id.
        statuses: The status of every export.
        generations: How often every export was started: once, plus once for each retry.
        timelines: The timeline of every export.
        deliveries: The deliveries to each sink, in order.
        objects: The objects below the prefix of each export: name → bytes.
        uploads: The keys of open multipart uploads.
        left_in_redis: The keys of open work.
        directory: The directory of the run, for objects that differ from their source.
    """

    exports: dict[str, Accepted]
    statuses: dict[str, Status] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    timelines: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    deliveries: dict[str, list[Delivery]] = field(default_factory=dict)
    objects: dict[str, dict[str, bytes]] = field(default_factory=dict)
    uploads: list[str] = field(default_factory=list)
    left_in_redis: list[str] = field(default_factory=list)
    directory: Path = Path()

    def poisoned_steps(self) -> set[tuple[str, int]]:
        """Returns the export and the number of each step that had to wait, because several workers had died in it."""
        return {
            (export_id, int(entry["step"]))
            for export_id, timeline in self.timelines.items()
            for entry in timeline
            if "the next worker may claim it after" in entry["note"]
        }

    def notes(self, export_id: str) -> list[str]:
        return [str(entry["note"]) for entry in self.timelines[export_id]]


async def collect(services: Services, exports: dict[str, Accepted]) -> Evidence:
    """Reads everything. Waits a while for what dispatchers and sweeps still have to do."""
    site = services.site()
    evidence = Evidence(exports, directory=services.directory)
    evidence.left_in_redis = await leftovers.in_redis(site)
    async with site.queue() as queue:
        for export_id in exports:
            evidence.statuses[export_id] = await queue.status(export_id)
            evidence.timelines[export_id] = await queue.timeline(export_id)
    client: Any = open_redis(site.redis_url)
    keys = Keys(site.namespace)
    try:
        for export_id in exports:
            (record,) = await read_fields(client, keys, [export_id], ["state"])
            state = record.get("state")
            evidence.generations[export_id] = 1 if state is None else json.loads(state)["generation"]
        entries: list[Any] = await client.xrange(site.stream)
    finally:
        await close_redis(client)
    stream = [
        Delivery(int(name.split(b"-")[0]) / 1000, Event.model_validate_json(fields[b"event"]))
        for name, fields in entries
    ]
    evidence.deliveries = {"stream": stream, "hook": services.hook.deliveries}
    evidence.objects, evidence.uploads = await asyncio.to_thread(_read_s3, site, list(exports))
    return evidence


def _read_s3(site: Site, export_ids: list[str]) -> tuple[dict[str, dict[str, bytes]], list[str]]:
    client = site.s3()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=site.bucket)
    names = [item["Key"] for page in pages for item in page.get("Contents", [])]
    uploads = client.get_paginator("list_multipart_uploads").paginate(Bucket=site.bucket)
    opened = [item["Key"] for page in uploads for item in page.get("Uploads", [])]

    def read(key: str) -> bytes:
        body: bytes = client.get_object(Bucket=site.bucket, Key=key)["Body"].read()
        return body

    found: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
    known = set(export_ids)
    with ThreadPoolExecutor(READERS) as readers:
        for key, content in zip(names, readers.map(read, names), strict=True):
            owner = next((part for part in key.split("/") if part in known), "")
            found[owner][key.rsplit("/", 1)[-1] if owner else key] = content
    client.close()
    return found, opened


def tracebacks(outputs: Iterable[Path]) -> list[str]:
    """Returns the first traceback of each log that has one."""
    found = []
    for output in outputs:
        text = output.read_text(encoding="utf-8", errors="replace")
        if "Traceback (most recent call last)" in text:
            start = text.index("Traceback (most recent call last)")
            found.append(f"{output.name}: {text[max(0, start - 300) : start + 1500]}")
    return found
