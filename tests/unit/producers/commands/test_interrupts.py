"""Commands run in an event loop that Ctrl-C ends at once."""

import ast

from support.source_modules import Module, modules, within

OWN_SIGNALS = {
    "export_producers.commands.interrupts",
    "export_worker.commands.gateway",
    "export_worker.commands.run",
    "export_worker.commands.simulate",
    "export_worker.commands.trigger",
}
"""Servers, which stop in order after a signal, and the function that runs all other commands."""


def runs_a_loop(module: Module) -> bool:
    loops = {"asyncio.run", "asyncio.Runner"}
    return any(isinstance(node, ast.Call) and ast.unparse(node.func) in loops for node in ast.walk(module.tree))


def test_every_command_runs_through_the_function_that_handles_interrupts() -> None:
    commands = [
        it for it in modules().values() if within(it.name, "export_producers.commands", "export_worker.commands")
    ]
    assert {module.name for module in commands if runs_a_loop(module)} == OWN_SIGNALS
