"""Scripts faults of the simulator."""

from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World

LONG_STAGE_S = 60.0
"""Longer than any pause of a loaded machine: the worker polls the job before its last stage."""


def add_fault(world: World, fault: Fault) -> None:
    """Adds a fault. A poll that is to end a job in an error finds the job running, because its stages are long."""
    world.faults.add(fault)
    if (fault.on, fault.fault) == ("poll", "error_stage"):
        world.scenario = world.scenario.model_copy(update={"stage_s": LONG_STAGE_S})
