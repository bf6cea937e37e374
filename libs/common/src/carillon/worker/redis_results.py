"""Results, read from Redis while they are fresh, with the ledger behind it."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from redis.exceptions import RedisError
from taskiq import TaskiqResult
from taskiq.exceptions import ResultGetError
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisAsyncResultBackend

from carillon.errors import ConfigurationError
from carillon.ledger.ledger import Ledger
from carillon.settings import PlatformSettings
from carillon.worker.execution import Verdict
from carillon.worker.results import Results

log = structlog.get_logger(__name__)

#: Redis is a convenience; nobody waits longer for it.
REDIS_SECONDS = 1.0


class RedisResults(Results):
    """Reads results from Redis where they are fresh, and from the ledger where Redis does not have them."""

    def __init__(self, ledger: Ledger, settings: PlatformSettings) -> None:
        super().__init__(ledger)
        if settings.redis_url is None:
            message = "TASK_RESULT_BACKEND is redis, but REDIS_URL is not set; set it, or use postgres"
            raise ConfigurationError(message)
        self._redis: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(
            redis_url=settings.redis_url.get_secret_value(),
            keep_results=True,
            result_ex_time=settings.task_redis_result_ttl_seconds,
            prefix_str=settings.task_redis_key_prefix.rstrip(":"),
            serializer=ORJSONSerializer(),
            socket_timeout=REDIS_SECONDS,
        )

    async def shutdown(self) -> None:
        """Disconnect."""
        await self._redis.shutdown()

    async def keep(self, task_id: str, result: TaskiqResult[Any], verdict: Verdict) -> None:
        """Put the result of an ended run into Redis; without Redis it is only in the ledger."""
        if not verdict.state.is_terminal or result.is_err:
            return
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                await self._redis.set_result(task_id, result)
        except (RedisError, OSError, TimeoutError, TypeError) as error:
            log.warning("result not cached", error=repr(error))

    async def is_result_ready(self, task_id: str) -> bool:
        """Whether the run has ended."""
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                if await self._redis.is_result_ready(task_id):
                    return True
        except (RedisError, OSError, TimeoutError):
            pass
        return await super().is_result_ready(task_id)

    async def get_result(self, task_id: str, with_logs: bool = False) -> TaskiqResult[Any]:
        """The result of a run that has ended."""
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                return await self._redis.get_result(task_id, with_logs)
        except (RedisError, OSError, TimeoutError, ResultGetError):
            return await super().get_result(task_id, with_logs)
