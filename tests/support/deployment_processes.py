"""Runs the services of a deployment as processes of this machine: same commands and settings, other addresses."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from export_worker.demo.processes import child, free_port, plain_environment, wait_until_listening

S3_PORT, SIMULATOR_PORT, GATEWAY_PORT, HEALTH_PORT = "9000", "8099", "8080", "9100"
"""The ports in the compose file and in the manifests."""
ALL_INTERFACES = "0.0.0.0"


def with_local_addresses(text: str, addresses: Mapping[str, str]) -> str:
    """Replaces the deployment's addresses in a text, in one pass, so that no replacement is replaced again.

    Args:
        addresses: Address, host or port of the deployment, as a whole word → its replacement on this machine.
    """
    longest_first = sorted(addresses, key=len, reverse=True)
    pattern = "|".join(map(re.escape, longest_first))
    return re.sub(rf"(?<![\w.])(?:{pattern})(?![\w.])", lambda found: addresses[found[0]], text)


class DeploymentProcesses:
    """Processes that replace a deployment's containers.

    Args:
        redis_url: The Redis of the tests, which replaces the Redis of the deployment.
        namespace: The tests share one Redis, so each has a separate namespace and stream of messages.
        stack: Ends the processes.
    """

    def __init__(self, directory: Path, redis_url: str, namespace: str, stack: AsyncExitStack) -> None:
        self._directory = directory
        self._namespace = namespace
        self._stack = stack
        self._health: dict[str, str] = {}
        self.redis_url = redis_url
        self.stream = f"{namespace}-messages"
        self.s3, self.simulator, self.gateway = (str(free_port()) for _ in range(3))

    def addresses(self, name: str) -> dict[str, str]:
        """Returns the replacements for one process. Each process has a separate port for its health pages."""
        return {
            "redis://redis:6379/0": self.redis_url,
            f"s3:{S3_PORT}": f"127.0.0.1:{self.s3}",
            f"simulator:{SIMULATOR_PORT}": f"127.0.0.1:{self.simulator}",
            "segment-events": self.stream,
            ALL_INTERFACES: "127.0.0.1",
            S3_PORT: self.s3,
            SIMULATOR_PORT: self.simulator,
            GATEWAY_PORT: self.gateway,
            HEALTH_PORT: self._health.setdefault(name, str(free_port())),
        }

    def local(self, name: str, arguments: Sequence[str]) -> list[str]:
        """Returns the command of one process with the addresses of this machine."""
        return [with_local_addresses(argument, self.addresses(name)) for argument in arguments]

    def environment(self, name: str, variables: Mapping[str, str], settings: str) -> dict[str, str]:
        """Returns the environment of a process: the deployment's variables, and a settings file for this process."""
        file = self._directory / f"{self._namespace}-{name}.toml"
        file.write_text(with_local_addresses(settings, self.addresses(name)), encoding="utf-8")
        own = {"EXPORT_CONFIG": str(file), "EXPORT_NAMESPACE": self._namespace}
        return plain_environment() | dict(variables) | own

    async def start(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> asyncio.subprocess.Process:
        """Starts one process."""
        started = child(self.local(name, arguments), name=name, directory=self._directory, env=environment)
        return await self._stack.enter_async_context(started)

    async def wait_until_listening(self, name: str, process: asyncio.subprocess.Process, port: str) -> None:
        """Waits until a process listens on the port that replaces the deployment's port."""
        local_port = self.addresses(name)[port]
        await wait_until_listening(process, int(local_port), name=name, directory=self._directory)

    def log(self, name: str) -> str:
        """Returns the output of a process."""
        return (self._directory / f"{name}.log").read_text(encoding="utf-8")
