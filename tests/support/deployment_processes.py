"""Services of a deployment as processes of this machine: the same commands, settings and words, other places."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from export_worker.demo.processes import child, free_port, plain_environment, wait_until_listening

S3_PORT, SIMULATOR_PORT, GATEWAY_PORT, HEALTH_PORT = "9000", "8099", "8080", "9100"
"""As compose file and manifests have them."""
EVERYWHERE = "0.0.0.0"
STATEFUL = ("redis", "s3", "simulator")
"""Names of the services that hold something, in both deployments."""


def moved(text: str, places: Mapping[str, str]) -> str:
    """A text with every place that it names exchanged, in one pass: a port that was put in is never taken for another.

    Args:
        places: What stands there, as a whole word, and what stands for it here.
    """
    longest_first = sorted(places, key=len, reverse=True)
    pattern = "|".join(map(re.escape, longest_first))
    return re.sub(rf"(?<![\w.])(?:{pattern})(?![\w.])", lambda found: places[found[0]], text)


class Deployed:
    """Processes in the place of a deployment's containers.

    Args:
        redis_url: The tests' Redis stands for the deployment's.
        namespace: The tests share that Redis, so each has a namespace and a stream of messages of its own.
    """

    def __init__(self, directory: Path, redis_url: str, namespace: str, stack: AsyncExitStack) -> None:
        self._directory = directory
        self._namespace = namespace
        self._stack = stack
        self._health: dict[str, str] = {}
        self.redis_url = redis_url
        self.stream = f"{namespace}-messages"
        self.s3, self.simulator, self.gateway = (str(free_port()) for _ in range(3))

    def places(self, name: str) -> dict[str, str]:
        """What is elsewhere here, for one process: its health page has a port of its own."""
        return {
            "redis://redis:6379/0": self.redis_url,
            f"s3:{S3_PORT}": f"127.0.0.1:{self.s3}",
            f"simulator:{SIMULATOR_PORT}": f"127.0.0.1:{self.simulator}",
            "segment-events": self.stream,
            EVERYWHERE: "127.0.0.1",
            S3_PORT: self.s3,
            SIMULATOR_PORT: self.simulator,
            GATEWAY_PORT: self.gateway,
            HEALTH_PORT: self._health.setdefault(name, str(free_port())),
        }

    def here(self, name: str, words: Sequence[str]) -> list[str]:
        """A command of one process, with the places of this machine."""
        return [moved(word, self.places(name)) for word in words]

    def environment(self, name: str, variables: Mapping[str, str], settings: str) -> dict[str, str]:
        """What a process gets: the variables of the deployment, and the settings in a file of its own."""
        file = self._directory / f"{self._namespace}-{name}.toml"
        file.write_text(moved(settings, self.places(name)), encoding="utf-8")
        own = {"EXPORT_CONFIG": str(file), "EXPORT_NAMESPACE": self._namespace}
        return plain_environment() | dict(variables) | own

    async def start(
        self, name: str, words: Sequence[str], environment: Mapping[str, str]
    ) -> asyncio.subprocess.Process:
        """Start one process."""
        started = child(self.here(name, words), name=name, directory=self._directory, env=environment)
        return await self._stack.enter_async_context(started)

    async def listens(self, name: str, process: asyncio.subprocess.Process, port: str) -> None:
        """Wait until a process listens, at the port that stands for the deployment's."""
        here = self.places(name)[port]
        await wait_until_listening(process, int(here), name=name, directory=self._directory)

    def log(self, name: str) -> str:
        """What a process has printed."""
        return (self._directory / f"{name}.log").read_text(encoding="utf-8")
