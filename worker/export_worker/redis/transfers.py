"""Reads how far the exports are that are transferred, for the metrics of workers."""

from arq.connections import ArqRedis

from export_worker.contract.redis_keys import Keys
from export_worker.redis.scripts import TRANSFERS, Script


class TransferProgress:
    """The transfers of one namespace."""

    def __init__(self, redis: ArqRedis, keys: Keys) -> None:
        self._keys = keys
        self._script = Script(redis, TRANSFERS)

    async def read(self, limit: int) -> list[str]:
        """Returns the progress of each transfer as JSON, or an empty text if it has none; the newest exports first."""
        answer = await self._script.document([self._keys.numbers], {"prefix": self._keys.prefix, "limit": limit})
        return [progress for *_, progress in answer.get("transfers", ())]
