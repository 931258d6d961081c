"""The CPU's threads: how many, a crew of workers for the replicas, and the BLAS library's own threads held
back.

One thread a replica with a single-threaded BLAS in each beats one replica with a threaded BLAS, because NumPy
releases the interpreter lock in every array operation, not only in matmul.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

# seconds a replica computes in Python before it lets another go on: its short calls wait for this, not for
# Python's own 5 ms (lenet's step: 0.90 of the time)
SWITCH = 1e-4

_lock = threading.Lock()
_chosen: int | None = None


def available_cores() -> int:
    """Cores this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def num_threads() -> int:
    """Threads that training and prediction use on the CPU: as set, at most one a core."""
    return _chosen or available_cores()


def chosen_threads() -> int | None:
    """What `set_num_threads` was last given: None for one thread a core."""
    return _chosen


def set_num_threads(n: int | None) -> None:
    """Use n threads on the CPU; None goes back to one for each core.

    Results repeat bit for bit for one seed and one thread count; another count sums in another order.  Raises
    ValueError where n is no whole number of at least 1.
    """
    global _chosen
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
        raise ValueError(f"a thread count must be a whole number of at least 1. Received: {n!r}")
    _chosen = None if n is None else min(n, available_cores())


class _Inside(threading.local):
    here = False


class Crew:
    """Worker threads that run one function on several arguments at once; the caller's thread takes the
    first.
    """

    def __init__(self) -> None:
        self._queues: list[SimpleQueue] = []
        self._busy = threading.Lock()
        self._inside = _Inside()

    def run(self, work: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        """[work(item) for item in items], side by side; the first error in the order of items is raised.

        A second caller waits until the workers are free; a call from inside work goes on alone.
        """
        if len(items) == 1 or self._inside.here:
            return [work(item) for item in items]
        with self._busy:
            while len(self._queues) < len(items) - 1:
                queue: SimpleQueue = SimpleQueue()
                threading.Thread(target=self._serve, args=(queue,), name="xpnet-worker", daemon=True).start()
                self._queues.append(queue)
            answers: list[SimpleQueue] = [SimpleQueue() for _ in items[1:]]
            for queue, item, answer in zip(self._queues, items[1:], answers):
                queue.put((work, item, answer))
            self._inside.here = True
            try:
                results = [_attempt(work, items[0])]
            finally:
                self._inside.here = False
            results += [answer.get() for answer in answers]
        errors = [error for _, error in results if error is not None]
        if errors:
            # a replica that was only told to stop is not the one to blame
            raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
        return [value for value, _ in results]

    def _serve(self, queue: SimpleQueue) -> None:
        self._inside.here = True
        while True:
            work, item, answer = queue.get()
            answer.put(_attempt(work, item))
            del work, item, answer  # an idle worker must not keep a model or its arrays alive


def _attempt(work, item):
    try:
        return work(item), None
    except BaseException as error:
        return None, error


crew = Crew()
if hasattr(os, "register_at_fork"):  # a forked child has no workers
    os.register_at_fork(after_in_child=lambda: crew.__init__())  # type: ignore[misc]


class _Hold:
    """BLAS held at n threads, and Python's at handing over quickly, while any block is open.

    Both are settings of the whole process, so blocks are counted: the first sets them, the last puts them
    back.
    """

    def __init__(self) -> None:
        self._controller: Any = None
        self._limit: Any = None
        self._interval = 0.0
        self._holders = 0

    def controller(self):
        """threadpoolctl's view of the loaded libraries, looked up once (a look-up takes milliseconds)."""
        if self._controller is None:
            from threadpoolctl import ThreadpoolController

            self._controller = ThreadpoolController().select(user_api="blas")
        return self._controller

    def acquire(self, n: int) -> None:
        with _lock:
            if self._holders == 0:
                self._limit = self.controller().limit(limits=n)
                self._interval = sys.getswitchinterval()
                sys.setswitchinterval(min(self._interval, SWITCH))
            self._holders += 1

    def release(self) -> None:
        with _lock:
            self._holders -= 1
            if self._holders == 0:
                sys.setswitchinterval(self._interval)
                self._limit.restore_original_limits()


_hold = _Hold()


class blas_threads:
    """Context: BLAS uses n threads inside the block.  Nested and overlapping blocks keep the first limit."""

    def __init__(self, n: int):
        self.n = n

    def __enter__(self):
        _hold.acquire(self.n)

    def __exit__(self, *_):
        _hold.release()


def blas_can_be_limited() -> bool:
    """Whether the BLAS behind NumPy obeys a thread limit (Apple's Accelerate does not)."""
    with _lock:
        return bool(_hold.controller().lib_controllers)


def blas_info() -> list[dict[str, Any]]:
    """What threadpoolctl knows of the loaded BLAS libraries."""
    with _lock:
        return _hold.controller().info()
