"""A real HTTP server that plays the four platforms and the APIs of two recipes. One package per platform.

It keeps jobs, and a test can make it slow, make it return wrong responses or cut a stream. The demo, the tests, docker
compose and the benchmarks run it. It shares no parsing with the drivers: a mistake in shared code would not be found.

Packages outside of export-worker that play their own platform import from here. A name is imported when it is first
used. Types are declared in `__init__.pyi`.
"""

from importlib import import_module

_MODULE_OF = {
    "CallType": "export_worker.simulator.scenario",
    "StagePlan": "export_worker.simulator.jobs",
    "Delivery": "export_worker.simulator.downloads",
    "Fault": "export_worker.simulator.scenario",
    "FileSpec": "export_worker.simulator.files",
    "Job": "export_worker.simulator.jobs",
    "JobFile": "export_worker.simulator.jobs",
    "Scenario": "export_worker.simulator.scenario",
    "Simulator": "export_worker.simulator.server",
    "SimulatorSettings": "export_worker.simulator.world",
    "Target": "export_worker.simulator.faults",
    "WORLD": "export_worker.simulator.world",
    "World": "export_worker.simulator.world",
    "build_app": "export_worker.simulator.app",
    "json_answer": "export_worker.simulator.answers",
    "send_file": "export_worker.simulator.downloads",
    "spoilt_answer": "export_worker.simulator.answers",
    "unauthorized": "export_worker.simulator.answers",
}
"""Public name → the module that defines it."""

__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used (PEP 562)."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_MODULE_OF)
