"""Work done ahead of its use, by threads or processes, its results in order."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

AHEAD = 4  # items per worker that are begun before their turn


def ahead(call, items, workers=1, pool=None, most=None):
    """Yield call(item) of every item in order, ``workers`` of them computed at once; an error is
    raised in its item's place.

    pool: an executor to use, which stays open; default: threads (with one worker: none). most:
    items that are begun before their turn (default: AHEAD per worker). After an error, or where the
    caller stops, items that have not begun are not begun.
    """
    if workers <= 1 and pool is None:
        yield from map(call, items)
        return
    own = pool is None
    pool = pool or ThreadPoolExecutor(workers, thread_name_prefix="ahead")
    begun, most = deque(), AHEAD * workers if most is None else most
    try:
        for item in items:
            begun.append(pool.submit(call, item))
            if len(begun) > most:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()
        if own:
            pool.shutdown()
