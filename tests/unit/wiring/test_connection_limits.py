"""The rate of a connection: a platform may have another default, and the decision of the user applies."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest

from export_worker.config import Config
from export_worker.credentials import Redactor
from export_worker.errors import ConfigError
from export_worker.wiring.connections import connection_limits
from export_worker.wiring.gateway import installation_of

HORIZON = {"platform": "sensorsdata", "api": "horizon"}


async def doctor() -> AsyncGenerator[Mapping[str, Any], None]:
    """Runs no checks."""
    checks: tuple[Mapping[str, Any], ...] = ()
    for check in checks:
        yield check


def config_of(**connections: dict[str, Any]) -> Config:
    address = {"base_url": "http://platform.example.cn", "api_key": "unused-key"}
    return Config.model_validate({"connections": {name: address | each for name, each in connections.items()}})


def test_rate_is_that_of_the_platform_unless_the_user_sets_one() -> None:
    config = config_of(
        v2={"platform": "sensorsdata"},
        horizon=HORIZON,
        chosen={**HORIZON, "requests_per_second": 5},
        other={"platform": "of-another-package"},
    )
    expected = {"v2": 5.0, "horizon": 3.0, "chosen": 5.0, "other": 5.0}
    assert {name: limits.requests_per_second for name, limits in connection_limits(config).items()} == expected

    shown = installation_of(config, Redactor(), doctor).connections
    assert {name: each.requests_per_second for name, each in shown.items()} == expected


def test_wrong_setting_is_refused_for_workers_alone() -> None:
    config = config_of(horizon={**HORIZON, "utc_ofset": "+08:00"})
    with pytest.raises(ConfigError, match=r"connections\.horizon\.utc_ofset: unknown option"):
        connection_limits(config)
