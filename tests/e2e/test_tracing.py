"""The trace of a request continues in each step of its export, as a link, and in the event."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Phase
from export_worker.demo.processes import free_port
from export_worker.redis.client import close_redis, commands, open_redis
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World
from export_worker.telemetry.instrumentation import FileStored, StepTaken
from export_worker.telemetry.tracing import PARTS_MAX, Tracing, open_tracing, secrets
from export_worker.wiring.secrets import build_redactor
from export_worker.wiring.worker import open_runtime
from support.misbehaving_server import answering
from support.worker_site import Site

REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
STEP = StepTaken(
    export_id="e",
    connection="c",
    kind="k",
    role="transfer",
    trace=TRACEPARENT,
    step=1,
    before=Phase.TRANSFERRING,
    after=Phase.SUCCEEDED,
    duration_s=1.0,
)


async def note_trace(site: Site, export_id: str, traceparent: object) -> None:
    """Writes a trace context as a producer writes it. A text that is not a JSON object is written unchanged."""
    redis = open_redis(site.redis_url)
    is_raw = isinstance(traceparent, str) and traceparent.startswith("[")
    noted = {"trace": str(traceparent) if is_raw else json.dumps({"traceparent": traceparent})}
    await commands(redis).hset(Keys(site.namespace).export(export_id), mapping=noted)
    await close_redis(redis)


async def run_one(site: Site, traceparent: str | None) -> tuple[str, list[ReadableSpan]]:
    """Runs one export until it has succeeded, and returns its id and the worker's spans."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    config, stop = site.config(), asyncio.Event()
    async with site.queue() as queue:
        export_id = (await queue.enqueue(REQUEST)).export_id
        if traceparent is not None:
            await note_trace(site, export_id, traceparent)
        async with open_runtime(config, build_redactor(config), [Tracing(provider)]) as runtime:
            serving = asyncio.create_task(runtime.serve(("control", "transfer"), stop))
            status = await queue.wait(export_id, 60)
            await site.events(export_id)
            stop.set()
            await serving
    assert status.phase is Phase.SUCCEEDED
    provider.shutdown()
    return export_id, list(exporter.get_finished_spans())


def steps(spans: list[ReadableSpan]) -> list[ReadableSpan]:
    return [span for span in spans if span.name.startswith("export.step")]


async def test_every_step_links_to_the_request_and_the_event_has_its_traceparent(site: Site, world: World) -> None:
    world.faults.add(Fault(on="submit", fault="error5xx"))
    export_id, spans = await run_one(site, TRACEPARENT)
    names = [span.name for span in steps(spans)]
    assert names[:2] == ["export.step queued", "export.step queued"]
    assert {"export.step running", "export.step transferring"} <= set(names)
    for span in steps(spans):
        (link,) = span.links
        assert (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") == (TRACE_ID, SPAN_ID)
        assert span.context is not None
        assert f"{span.context.trace_id:032x}" != TRACE_ID, "each step has a separate trace"
        assert span.parent is None
        assert span.attributes is not None
        assert span.attributes["export.id"] == export_id
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time
    (event,) = await site.events(export_id)
    assert event.traceparent == TRACEPARENT


async def test_spans_of_calls_and_files_are_children_of_their_step_and_failures_are_errors(
    site: Site, world: World
) -> None:
    world.faults.add(Fault(on="submit", fault="error5xx"))
    _, spans = await run_one(site, TRACEPARENT)
    by_id = {span.context.span_id: span for span in spans if span.context is not None}
    within = {(by_id[span.parent.span_id].name, span.name): span for span in spans if span.parent is not None}
    assert {
        ("export.step queued", "platform.submit"),
        ("export.step running", "platform.poll"),
        ("export.step transferring", "platform.open"),
        ("export.step transferring", "file.store"),
    } <= set(within)
    failed = [span for span in spans if span.status.status_code is StatusCode.ERROR]
    assert {span.name for span in failed} == {"export.step queued", "platform.submit"}
    assert {span.status.description for span in failed} == {"platform_unavailable"}
    polls = [span for span in spans if span.name == "platform.poll"]
    assert all(span.status.status_code is not StatusCode.ERROR for span in polls), "a poll without a result is no error"


async def test_export_without_trace_has_no_links_and_no_traceparent(site: Site) -> None:
    export_id, spans = await run_one(site, None)
    assert steps(spans)
    assert all(not span.links for span in steps(spans))
    (event,) = await site.events(export_id)
    assert event.traceparent is None
    redis = open_redis(site.redis_url)
    (event_json,) = [fields[b"event"] for _, fields in await redis.xrange(site.stream)]
    assert "traceparent" not in json.loads(event_json)
    await close_redis(redis)


async def test_invalid_trace_does_not_stop_the_export_and_is_not_in_the_event(site: Site) -> None:
    async with site.queue() as queue:
        export_ids = []
        for trace in ("00-zz", None, {"a": 1}, "[" * 100_000, f"{TRACEPARENT}\r\nx: y"):
            export_ids.append((await queue.enqueue(REQUEST)).export_id)
            await note_trace(site, export_ids[-1], trace)
        ran = await asyncio.to_thread(site.command, "run", "--burst")
        assert ran.status == 0
        for export_id in export_ids:
            assert (await queue.status(export_id)).phase is Phase.SUCCEEDED
            (event,) = await site.events(export_id)
            assert event.traceparent is None


async def test_enqueue_stores_the_trace_of_its_environment(site: Site) -> None:
    ran = await asyncio.to_thread(
        site.command, "enqueue", "--json", "-", stdin=REQUEST, TRACEPARENT=TRACEPARENT, TRACESTATE="a=b"
    )
    redis = open_redis(site.redis_url)
    noted = await commands(redis).hmget(Keys(site.namespace).export(json.loads(ran.stdout)["export_id"]), "trace")
    await close_redis(redis)
    assert noted == [json.dumps({"traceparent": TRACEPARENT, "tracestate": "a=b"}, separators=(",", ":")).encode()]


async def test_only_first_parts_of_a_step_have_spans_and_the_rest_are_counted() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider)
    for _ in range(PARTS_MAX + 7):
        tracing.on(FileStored("e", "c", "k", 1, 1, 0.1))
    tracing.on(STEP)
    tracing.on(STEP)
    first, second = steps(list(exporter.get_finished_spans()))
    assert len(exporter.get_finished_spans()) == 2 + PARTS_MAX
    assert first.attributes is not None
    assert first.attributes["export.parts_left_out"] == 7
    assert second.attributes is not None
    assert "export.parts_left_out" not in second.attributes


async def test_close_does_not_wait_for_a_collector_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export_worker.telemetry.tracing.FLUSH_TIMEOUT_S", 0.3)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    async with answering(None) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        tracing = open_tracing("exports")
        tracing.on(STEP)
        async with asyncio.timeout(1.5):
            await tracing.close()


def test_otel_variables_set_the_service_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "exports-of-cn")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=prod")
    attributes = open_tracing("exports").provider.resource.attributes
    assert attributes["service.name"] == "exports-of-cn"
    assert attributes["service.namespace"] == "exports"
    assert attributes["deployment.environment"] == "prod"


def test_credentials_of_the_collector_are_known_as_secrets() -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Basic%20canary-basic,x=canary-x",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "canary-bare",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector/v1/traces?token=canary-query",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://[broken",
    }
    assert {"Basic canary-basic", "canary-x", "canary-query", "canary-bare"} <= set(secrets(environment))


@pytest.mark.parametrize("name", ["OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"])
async def test_wrong_otel_variable_exits_2_and_names_the_setting(site: Site, name: str) -> None:
    ran = await asyncio.to_thread(site.command, "run", "--burst", **{"EXPORT_WORKER__TRACING": "true", name: "-1"})
    assert ran.status == 2
    assert "worker.tracing: " in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.fixture
async def collector() -> AsyncIterator[tuple[str, list[bytes]]]:
    """An OTLP receiver. Yields its URL and the received bodies."""
    received: list[bytes] = []

    async def receive(request: web.Request) -> web.Response:
        received.append(await request.read())
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.add_routes([web.post("/v1/traces", receive)])
    runner, port = web.AppRunner(app, shutdown_timeout=1.0), free_port()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}", received
    await runner.cleanup()


async def test_worker_sends_spans_to_the_collector_of_the_variables(
    site: Site, collector: tuple[str, list[bytes]]
) -> None:
    address, received = collector
    async with site.queue() as queue:
        export_id = (await queue.enqueue(REQUEST)).export_id
        await note_trace(site, export_id, TRACEPARENT)
    ran = await asyncio.to_thread(
        site.command,
        "run",
        "--burst",
        EXPORT_WORKER__TRACING="true",
        OTEL_EXPORTER_OTLP_ENDPOINT=address,
        OTEL_EXPORTER_OTLP_COMPRESSION="none",
    )
    assert ran.status == 0, ran
    sent = b"".join(received)
    assert export_id.encode() in sent
    assert bytes.fromhex(TRACE_ID) in sent
