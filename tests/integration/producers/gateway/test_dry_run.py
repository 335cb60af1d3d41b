"""`POST /v1/exports?dry_run=1`: the answer, the refusals, and when the platform is asked."""

from collections.abc import AsyncIterator

import pytest
from arq.connections import ArqRedis

from export_worker.contract.dry_run import Preview
from export_worker.contract.request import ExportRequest
from export_worker.errors import PlatformUnavailableError
from support.gateway_site import REQUEST, GatewaySite, open_gateway


class Platform:
    """What the gateway asks. It answers as the test says."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Preview | Exception | None = Preview(found=True, name="标签", users=7)

    async def __call__(self, request: ExportRequest) -> Preview | None:
        """Answers one question."""
        self.asked.append(request.kind)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def platform() -> Platform:
    return Platform()


@pytest.fixture
async def gateway(
    arq_redis: ArqRedis, redis_url: str, namespace: str, platform: Platform
) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace, preview=platform) as opened:
        yield opened


async def test_dry_run_answers_200_and_enqueues_nothing(gateway: GatewaySite, platform: Platform) -> None:
    equal = await gateway.enqueue()
    response = await gateway.call("POST", "/v1/exports?dry_run=1", REQUEST, headers={"Idempotency-Key": "k"})
    assert response.status == 200
    assert response.json["platform"] == {"found": True, "name": "标签", "ids": {}, "users": 7}
    assert [export["export_id"] for export in response.json["equal"]] == [equal]
    assert response.json["request"]["idempotency_key"] == "k"
    assert platform.asked == ["growingio.tag_users"]
    assert len(await gateway.site.queue.list_exports()) == 1


async def test_dry_run_refuses_an_invalid_request_without_a_call_to_the_platform(
    gateway: GatewaySite, platform: Platform
) -> None:
    await gateway.call("POST", "/v1/exports", REQUEST | {"idempotency_key": "k"})
    conflict = await gateway.call("POST", "/v1/exports?dry_run=1", REQUEST | {"idempotency_key": "k", "deadline_s": 5})
    wrong = await gateway.call("POST", "/v1/exports?dry_run=true", {"connection": "gio"})
    assert (conflict.status, conflict.json["code"]) == (422, "idempotency_conflict")
    assert (wrong.status, wrong.json["code"]) == (422, "invalid_request")
    assert platform.asked == []


async def test_dry_run_of_a_platform_that_fails_is_a_problem(gateway: GatewaySite, platform: Platform) -> None:
    platform.answer = PlatformUnavailableError("HTTP 503")
    response = await gateway.call("POST", "/v1/exports?dry_run=1", REQUEST)
    assert (response.status, response.json["code"]) == (503, "platform_unavailable")


async def test_dry_run_without_the_connection_has_no_platform(gateway: GatewaySite, platform: Platform) -> None:
    platform.answer = None
    response = await gateway.call("POST", "/v1/exports?dry_run=1", REQUEST)
    assert (response.status, response.json["platform"]) == (200, None)


@pytest.mark.parametrize("value", ["", "yes", "2"])
async def test_unknown_value_of_dry_run_is_refused(gateway: GatewaySite, value: str) -> None:
    response = await gateway.call("POST", f"/v1/exports?dry_run={value}", REQUEST)
    assert (response.status, response.json["errors"][0]["field"]) == (400, "dry_run")
    assert await gateway.site.queue.list_exports() == []
