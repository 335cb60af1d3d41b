"""What most parts of a worker are built from."""

from dataclasses import dataclass

from arq.connections import ArqRedis

from export_worker.config import Config
from export_worker.contract.redis_keys import Keys
from export_worker.credentials import Redactor
from export_worker.redis.claims import Timings
from export_worker.telemetry.instrumentation import Instrument
from export_worker.worker.clock import ClockAndRandom


@dataclass(frozen=True, slots=True)
class WorkerBase:
    """What most parts of a worker are built from.

    Args:
        owner: The name of this worker, under which it holds leases.
    """

    config: Config
    redactor: Redactor
    redis: ArqRedis
    keys: Keys
    owner: str
    clock: ClockAndRandom
    timings: Timings
    instrument: Instrument
