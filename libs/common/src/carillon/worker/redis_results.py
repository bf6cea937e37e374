"""Results, read from Redis while they are fresh, with the ledger behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson
import structlog
from redis.exceptions import RedisError
from taskiq import TaskiqResult
from taskiq.exceptions import ResultGetError
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisAsyncResultBackend

from carillon.errors import ConfigurationError
from carillon.platform import Platform
from carillon.worker.execution import Execution
from carillon.worker.results import Results

log = structlog.get_logger(__name__)

#: Redis is a convenience; nobody waits longer for it.
REDIS_SECONDS = 1.0
#: After it did not answer, it is left alone for so long.
REST_SECONDS = 5.0

Answer = TypeVar("Answer")


class RedisResults(Results):
    """Reads results from Redis where they are fresh, and from the ledger where Redis does not have them.

    A Redis that is away costs one question in five seconds its second: until then nobody asks it.
    """

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform)
        settings = platform.settings
        if settings.redis_url is None:
            message = "TASK_RESULT_BACKEND is redis, but REDIS_URL is not set; set it, or use postgres"
            raise ConfigurationError(message)
        self._resting_until = 0.0
        self._redis: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(
            redis_url=settings.redis_url.get_secret_value(),
            keep_results=True,
            result_ex_time=settings.task_redis_result_ttl_seconds,
            prefix_str=settings.task_redis_key_prefix.rstrip(":"),
            serializer=ORJSONSerializer(),
            socket_timeout=REDIS_SECONDS,
            socket_connect_timeout=REDIS_SECONDS,
        )

    async def shutdown(self) -> None:
        """Disconnect."""
        await self._redis.shutdown()

    async def keep(self, task_id: str, result: TaskiqResult[Any], execution: Execution) -> None:
        """Put the result of an ended run into Redis; without Redis, and when it is large, it is only elsewhere."""
        if not execution.verdict.state.is_terminal or result.is_err or execution.is_stored:
            return
        # What the ledger has, so that a result is the same from either: pydantic would write a datetime otherwise.
        kept = result.model_copy(update={"return_value": orjson.loads(execution.result or "null")})
        await self._ask(lambda: self._redis.set_result(task_id, kept))

    async def is_result_ready(self, task_id: str) -> bool:
        """Whether the run has ended."""
        if await self._ask(lambda: self._redis.is_result_ready(task_id)):
            return True
        return await super().is_result_ready(task_id)

    async def get_result(self, task_id: str, with_logs: bool = False) -> TaskiqResult[Any]:
        """The result of a run that has ended."""
        found = await self._ask(lambda: self._redis.get_result(task_id, with_logs))
        return await super().get_result(task_id, with_logs) if found is None else found

    async def _ask(self, question: Callable[[], Awaitable[Answer]]) -> Answer | None:
        """What Redis says; None where it does not know, is away, or has what nobody can read."""
        if time.monotonic() < self._resting_until:
            return None
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                return await question()
        except ResultGetError:
            return None
        except (RedisError, OSError, TimeoutError) as error:
            self._resting_until = time.monotonic() + REST_SECONDS
            log.warning("Redis does not answer, results are in the ledger", error=repr(error))
        except (TypeError, ValueError) as error:
            log.warning("Redis cannot keep or has not kept a result", error=repr(error)[:500])
        return None
