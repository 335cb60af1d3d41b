"""Validation of scenarios and faults."""

from typing import Any

import pytest
from pydantic import ValidationError

from export_worker.simulator.scenario import Fault, Scenario


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"on": "list", "fault": "empty_uris"}, "applies only to poll"),
        ({"on": "poll", "fault": "short"}, "applies only to download"),
        ({"on": "download", "fault": "redirect"}, "needs a location"),
        ({"on": "poll", "fault": "gremlins"}, "fault"),
        ({"on": "poll", "fault": "slow", "dealy_s": 1}, "dealy_s"),
    ],
)
def test_invalid_fault_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Fault.model_validate(fields)


def test_scenario_with_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="stages_s"):
        Scenario.model_validate({"stages_s": 1})
