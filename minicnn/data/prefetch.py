"""Work that is begun before its result is needed, by threads or processes; results keep their
order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

#: Items per worker that are begun before their results are asked for.
QUEUED_PER_WORKER = 4


def ordered_map(
    call: Callable[[Any], Any],
    items: Iterable[Any],
    workers: int = 1,
    pool: Executor | None = None,
    limit: int | None = None,
) -> Iterator[Any]:
    """Yield call(item) of every item in order, ``workers`` of them computed at once; an error is
    raised in its item's place.

    pool: an executor to use, which stays open; default: threads (with one worker: none). limit:
    items that are begun before their results are asked for (default: QUEUED_PER_WORKER per worker).
    After an error, or where the caller stops, items that have not begun are not begun.
    """
    if workers <= 1 and pool is None:
        yield from map(call, items)
        return
    executor = pool or ThreadPoolExecutor(workers, thread_name_prefix="ordered_map")
    queued: deque[Future[Any]] = deque()
    limit = QUEUED_PER_WORKER * workers if limit is None else limit
    try:
        for item in items:
            queued.append(executor.submit(call, item))
            if len(queued) > limit:
                yield queued.popleft().result()
        while queued:
            yield queued.popleft().result()
    finally:
        for future in queued:
            future.cancel()
        if pool is None:
            executor.shutdown()
