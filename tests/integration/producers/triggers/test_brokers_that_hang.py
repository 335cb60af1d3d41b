"""Brokers to which no client can connect: a trigger reports that it waits, and stops at once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

import pytest
from arq.connections import ArqRedis

from export_producers.client import ExportQueue
from export_producers.triggers.brokers import kafka, nats, rabbitmq
from export_producers.triggers.brokers.trigger import START_TIMEOUT_S, Accept, BrokerTrigger, Subscribed
from export_producers.triggers.dead_letters import DeadLetters
from export_producers.triggers.intake import Intake
from export_worker.contract.redis_keys import Keys
from export_worker.demo.processes import free_port
from export_worker.sinks.brokers import rabbitmq as sink_rabbitmq
from export_worker.sinks.brokers.rabbitmq import RabbitmqLink
from export_worker.sinks.brokers.sink import CONNECT_TIMEOUT_S
from support.silent_server import SilentServer, silent_server


@dataclass
class HangingBroker:
    """A broker to which a client never finishes to connect.

    Args:
        subscribe: Makes the client of a trigger.
        starting: Is set when the client tries to connect.
    """

    subscribe: Callable[[Accept], Subscribed]
    starting: asyncio.Event


@pytest.fixture
async def server() -> AsyncIterator[SilentServer]:
    async with silent_server() as found:
        yield found


@pytest.fixture(params=["nats", "kafka"])
def hanging_broker(request: pytest.FixtureRequest, server: SilentServer) -> HangingBroker:
    if request.param == "kafka":
        return HangingBroker(partial(kafka.subscribe, server.address, "topic", "g"), server.opened)
    # The client of NATS tries again for as long as nothing listens.
    address, starting = f"nats://127.0.0.1:{free_port()}", asyncio.Event()

    def subscribe(accept: Accept) -> Subscribed:
        starting.set()
        return nats.subscribe(address, "subject", "g", "stream", accept)

    return HangingBroker(subscribe, starting)


@pytest.fixture
async def intake(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[Intake]:
    async with ExportQueue(redis_url, namespace=namespace) as queue:
        dead_letters = DeadLetters(arq_redis, Keys(namespace).dead("t"))
        yield Intake("t", queue=queue, dead_letters=dead_letters, template=None, stop=asyncio.Event())


async def test_trigger_reports_that_it_waits_for_a_broker_that_does_not_answer(
    hanging_broker: HangingBroker, intake: Intake
) -> None:
    trigger = BrokerTrigger(intake, hanging_broker.subscribe, start_timeout_s=0.2)
    running = asyncio.create_task(trigger.run(intake._stop))
    async with asyncio.timeout(30):
        while not intake.waiting:
            await asyncio.sleep(0.02)
        intake._stop.set()
        await running


async def test_trigger_that_is_stopped_while_it_starts_ends_at_once_and_reports_no_outage(
    hanging_broker: HangingBroker, intake: Intake
) -> None:
    trigger = BrokerTrigger(intake, hanging_broker.subscribe, start_timeout_s=300.0)
    running = asyncio.create_task(trigger.run(intake._stop))
    async with asyncio.timeout(30):
        await hanging_broker.starting.wait()
        intake._stop.set()
        await running
    assert not intake.waiting


async def test_sink_leaves_no_connection_attempt_of_rabbitmq_behind(server: SilentServer) -> None:
    link = RabbitmqLink(f"amqp://guest:guest@{server.address}/", "queue", None, connect_timeout_s=0.2)
    with pytest.raises((ConnectionError, TimeoutError)):
        await link.start()
    await link.stop()
    async with asyncio.timeout(30):
        await server.closed.wait()
    names = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
    assert [name for name in names if "RobustConnection" in name] == []


def test_limit_of_a_connection_attempt_is_shorter_than_that_of_a_start() -> None:
    assert rabbitmq.CONNECT_TIMEOUT_S < START_TIMEOUT_S
    assert sink_rabbitmq.CONNECT_TIMEOUT_S < CONNECT_TIMEOUT_S
