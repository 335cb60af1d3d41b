"""Connections as the worker uses them: driver, policy, bandwidth and request rate."""

from collections.abc import Mapping
from dataclasses import dataclass

from export_worker.errors import PlatformRefusedError, UnknownConnectionError
from export_worker.lifecycle.decisions import Policy
from export_worker.lifecycle.export import Export
from export_worker.platforms.base import Driver
from export_worker.redis.claims import ClaimedStep
from export_worker.redis.rate_limit import Rate
from export_worker.step_context import RequestGate
from export_worker.transfer.bandwidth import UNLIMITED, BandwidthLimit
from export_worker.transfer.transforms.column_rules import NO_POLICY, ColumnPolicy


@dataclass(frozen=True, slots=True)
class Connection:
    """A platform that this worker can call.

    Args:
        bandwidth: Limit at which its files are read.
        rate: Rate limit of its requests; None for no limit.
        columns: What it requires of the columns of its files.
    """

    platform: str
    driver: Driver
    policy: Policy
    bandwidth: BandwidthLimit = UNLIMITED
    rate: Rate | None = None
    columns: ColumnPolicy = NO_POLICY

    def request_gate(self, claimed: ClaimedStep) -> RequestGate | None:
        """Returns the gate of a step's requests.

        The claim of a control step has counted the first one, except for a cancel. So has the commit that kept a step.
        """
        if self.rate is None:
            return None
        return (
            self.rate.for_transfer(1 if claimed.kept else 0)
            if claimed.role == "transfer"
            else self.rate.for_control(0 if claimed.cancel else 1)
        )


@dataclass(frozen=True, slots=True)
class Connections:
    """The connections that are configured at this worker.

    Args:
        by_name: Every configured connection.
        fallback: Policy of exports whose connection is not configured here.
    """

    by_name: Mapping[str, Connection]
    fallback: Policy

    def find(self, export: Export) -> Connection | None:
        """Returns the connection of an export; None if it is not configured here."""
        return self.by_name.get(export.request.connection)

    def policy_of(self, export: Export) -> Policy:
        """Returns the policy of an export."""
        connection = self.find(export)
        return self.fallback if connection is None else connection.policy

    def get(self, export: Export) -> Connection:
        """Returns the connection of an export.

        Raises:
            UnknownConnectionError: It is not configured here.
            PlatformRefusedError: It is of another platform than the export needs.
        """
        request, connection = export.request, self.find(export)
        if connection is None:
            raise UnknownConnectionError(f"no connection {request.connection!r} is configured at this worker")
        if connection.platform != request.platform:
            raise PlatformRefusedError(
                f"connection {request.connection!r} is of platform {connection.platform}, "
                f"but {request.kind} needs {request.platform}"
            )
        return connection
