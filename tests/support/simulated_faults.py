"""Scripts faults of the simulator."""

from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World

LONG_STAGE_S = 60.0
"""Longer than any pause of a loaded machine: the worker polls the job before its last stage."""
LATER_POLL_STAGE_S = 1.0
"""The job has three stages before its last one, so a loaded machine has 3 s for the polls before the fault."""


def add_fault(world: World, fault: Fault) -> None:
    """Adds a fault. A poll that is to fail finds the job running, because its stages are long enough."""
    world.faults.add(fault)
    if fault.on == "poll" and (fault.fault == "error_stage" or fault.skip):
        ends_the_export = fault.fault == "error_stage" or fault.times is None
        stage_s = LONG_STAGE_S if ends_the_export else LATER_POLL_STAGE_S
        world.scenario = world.scenario.model_copy(update={"stage_s": stage_s})
