"""Runs the services of a deployment as local processes: with the same commands and settings, but local addresses."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from export_worker.demo.processes import child, free_port, plain_environment, wait_until_listening

S3_PORT, SIMULATOR_PORT, GATEWAY_PORT, HEALTH_PORT = "9000", "8099", "8080", "9100"
"""The ports in the compose file and in the manifests."""
ALL_ADDRESSES = "0.0.0.0"


def replaced(text: str, replacements: Mapping[str, str]) -> str:
    """Returns the text with all replacements made in one pass, so that no inserted port is replaced again.

    Args:
        text: A command, or settings.
        replacements: Each address of the deployment, found as a whole word, and the local one.
    """
    longest_first = sorted(replacements, key=len, reverse=True)
    pattern = "|".join(map(re.escape, longest_first))
    return re.sub(rf"(?<![\w.])(?:{pattern})(?![\w.])", lambda found: replacements[found[0]], text)


class LocalDeployment:
    """Processes that take the role of a deployment's containers.

    Args:
        directory: The directory of settings and logs.
        redis_url: The tests' Redis, which replaces the deployment's.
        namespace: Separates the exports and the message stream of this test from those of others on the same Redis.
        stack: Stops the processes.
    """

    def __init__(self, directory: Path, redis_url: str, namespace: str, stack: AsyncExitStack) -> None:
        self._directory = directory
        self._namespace = namespace
        self._stack = stack
        self._health: dict[str, str] = {}
        self.redis_url = redis_url
        self.stream = f"{namespace}-messages"
        self.s3, self.simulator, self.gateway = (str(free_port()) for _ in range(3))

    def replacements(self, name: str) -> dict[str, str]:
        """Returns the local addresses for one process. The health page of each process has a separate port."""
        return {
            "redis://redis:6379/0": self.redis_url,
            f"s3:{S3_PORT}": f"127.0.0.1:{self.s3}",
            f"simulator:{SIMULATOR_PORT}": f"127.0.0.1:{self.simulator}",
            "segment-events": self.stream,
            ALL_ADDRESSES: "127.0.0.1",
            S3_PORT: self.s3,
            SIMULATOR_PORT: self.simulator,
            GATEWAY_PORT: self.gateway,
            HEALTH_PORT: self._health.setdefault(name, str(free_port())),
        }

    def local_command(self, name: str, words: Sequence[str]) -> list[str]:
        """Returns the command of one process with local addresses."""
        return [replaced(word, self.replacements(name)) for word in words]

    def environment(self, name: str, variables: Mapping[str, str], settings: str) -> dict[str, str]:
        """Returns a process environment: the deployment's variables, and the path of a file with the settings."""
        file = self._directory / f"{self._namespace}-{name}.toml"
        file.write_text(replaced(settings, self.replacements(name)), encoding="utf-8")
        own = {"EXPORT_CONFIG": str(file), "EXPORT_NAMESPACE": self._namespace}
        return plain_environment() | dict(variables) | own

    async def start(
        self, name: str, words: Sequence[str], environment: Mapping[str, str]
    ) -> asyncio.subprocess.Process:
        """Starts one process."""
        started = child(self.local_command(name, words), name=name, directory=self._directory, env=environment)
        return await self._stack.enter_async_context(started)

    async def wait_until_listening(self, name: str, process: asyncio.subprocess.Process, port: str) -> None:
        """Waits until a process listens on the local port that replaces the deployment's port."""
        local = self.replacements(name)[port]
        await wait_until_listening(process, int(local), name=name, directory=self._directory)

    def log(self, name: str) -> str:
        """Returns the output of a process so far."""
        return (self._directory / f"{name}.log").read_text(encoding="utf-8")
