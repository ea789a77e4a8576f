"""Async rewards, side by side. Apart from `calls`, so that who has none does not import asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

from guerdon.samples import Verdict
from guerdon.scoring.calls import attempt


class Loop:
    """One event loop in a thread of its own, so that async rewards also run where the caller has a loop already (a notebook, a server)."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True, name="guerdon-rewards")
        self.thread.start()

    def all(self, calls: Sequence[Callable[[], Any]], deadline: float) -> list[Any]:
        """What each coroutine returned, or failed where it raised or was late. At most `concurrency` at a time."""
        running = asyncio.run_coroutine_threadsafe(self._all(calls, deadline), self.loop)
        try:
            return running.result()
        except BaseException:
            running.cancel()
            raise

    async def _all(self, calls: Sequence[Callable[[], Any]], deadline: float) -> list[Any]:
        out: list[Any] = [None] * len(calls)
        todo = iter(enumerate(calls))

        async def worker() -> None:
            for i, call in todo:
                out[i] = await self._one(call, deadline)

        await asyncio.gather(*(worker() for _ in range(min(self.concurrency, len(calls)))))
        return out

    async def _one(self, call: Callable[[], Any], deadline: float) -> Any:
        task = asyncio.ensure_future(call())
        done, _ = await asyncio.wait({task}, timeout=deadline)
        if not done:
            task.cancel()  # not awaited: one that ignores it must not hold up the others
            return Verdict.fail(f"late: no answer within {deadline:g} s")
        return attempt(task.result)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout=1.0)
