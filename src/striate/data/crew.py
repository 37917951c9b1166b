"""Several hands on a stream of jobs: results come back in the order of the jobs, and nobody waits for ever.

`threads_in_order` and `processes_in_order` are generators with a bounded look-ahead. Closing one (or an exception in its
consumer) ends its threads or processes. A job that raises is `Failed` with the number it last noted; when nothing finishes
for `timeout_s`, or a process dies, `Stuck` says which numbers were in flight. The numbers are rows of an index, which the
caller turns into file names.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import queue
import signal
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from multiprocessing import connection, reduction
from multiprocessing.process import BaseProcess
from typing import Any, Final, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from striate.errors import ResourceError

Job = TypeVar("Job")
Result = TypeVar("Result")
Note = Callable[[int], None]  # a job calls it with the row it turns to, so that a failure can be named

NOTHING: Final = -1  # the note of a worker that holds no row
_JOIN_S: Final = 5.0


class Failed(Exception):
    """A job raised. row: what it was busy with; type_name, text, trace: of the exception; error: itself, from threads."""

    def __init__(self, row: int, type_name: str, text: str, trace: str, error: BaseException | None) -> None:
        super().__init__(row, type_name, text, trace, error)
        self.row, self.type_name, self.text, self.trace, self.error = row, type_name, text, trace, error


class Stuck(Exception):
    """Nobody works any more. reason: in words; rows: what was in flight, the most suspicious first."""

    def __init__(self, reason: str, rows: list[int]) -> None:
        super().__init__(reason, rows)
        self.reason, self.rows = reason, rows


# ---------------------------------------------------------------- threads


@dataclass(eq=False)
class _Task(Generic[Job, Result]):
    job: Job
    done: threading.Event = field(default_factory=threading.Event)
    result: Result | None = None
    failed: Failed | None = None


def threads_in_order(
    work: Callable[[Job, Note], Result], jobs: Iterator[Job], count: int, ahead: int, timeout_s: float
) -> Generator[Result]:
    """work(job, note) of every job, in `count` threads; with count 0 here and now, one after the other.

    At most `ahead` jobs are taken before their turn. The threads are daemons: one that hangs in a system call does
    not keep the process from ending. With count 0 a hang cannot be noticed. Raises Failed and Stuck.
    """
    if count == 0:
        yield from _here(work, jobs)
        return
    tasks: queue.SimpleQueue[_Task[Job, Result] | None] = queue.SimpleQueue()
    rows_W = [NOTHING] * count
    finished_W = [0] * count
    ending = threading.Event()

    def serve(worker: int) -> None:
        def note(row: int) -> None:
            rows_W[worker] = row

        while (task := tasks.get()) is not None and not ending.is_set():
            try:
                task.result = work(task.job, note)
            except BaseException as error:  # kept whatever it is: it is raised again where the result is awaited
                task.failed = _failed(rows_W[worker], error)
            rows_W[worker] = NOTHING
            finished_W[worker] += 1
            task.done.set()

    hands = [threading.Thread(target=serve, args=(worker,), name=f"loader-{worker}", daemon=True) for worker in range(count)]
    for hand in hands:
        hand.start()
    pending: deque[_Task[Job, Result]] = deque()
    is_stuck = False
    try:
        while True:
            while len(pending) < ahead and (job := next(jobs, None)) is not None:
                pending.append(_Task(job))
                tasks.put(pending[-1])
            if not pending:
                return
            before = list(finished_W)
            while not pending[0].done.wait(timeout_s):
                if before == finished_W:
                    is_stuck = True
                    raise Stuck(f"no image was finished for {timeout_s:g} s", [row for row in rows_W if row != NOTHING])
                before = list(finished_W)
            task = pending.popleft()
            if task.failed is not None:
                raise task.failed from task.failed.error
            yield task.result  # type: ignore[misc]  # a task that has not failed has its result
    finally:
        ending.set()
        for _ in hands:
            tasks.put(None)
        for hand in hands:
            hand.join(0 if is_stuck else _JOIN_S)


def _here(work: Callable[[Job, Note], Result], jobs: Iterator[Job]) -> Iterator[Result]:
    row = NOTHING

    def note(turned_to: int) -> None:
        nonlocal row
        row = turned_to

    for job in jobs:
        try:
            result = work(job, note)
        except Exception as error:
            raise _failed(row, error) from error
        yield result


def _failed(row: int, error: BaseException) -> Failed:
    return Failed(row, type(error).__name__, str(error), "".join(traceback.format_exception(error)), error)


# ---------------------------------------------------------------- processes


class Slab:
    """Memory that parent and workers share, gone with the last of them: no name, no file to clean up.

    On Linux a memfd, which does not count against /dev/shm (64 MB in many containers) and cannot be short of pages
    later, for they are taken at once. Raises ResourceError with the needed size when there is no room; taking more than
    the machine has can end the process, so the caller looks first.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        try:
            if hasattr(os, "memfd_create"):
                self._handle = os.memfd_create("striate-loader", os.MFD_CLOEXEC)
            else:
                with tempfile.TemporaryFile() as file:
                    self._handle = os.dup(file.fileno())
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._handle, 0, size_bytes)
            else:
                os.truncate(self._handle, size_bytes)
        except OSError as error:
            raise ResourceError(
                f"The loader needs {size_bytes / 1e6:,.0f} MB of shared memory for its processes ({error.strerror}). "
                "Use threads (--workers 4), fewer processes, or a smaller --batch-size."
            ) from error
        self._map = mmap.mmap(self._handle, size_bytes)

    def array(self, offset: int, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """A part of the slab as an array of its own type; no copy."""
        count = int(np.prod(shape))
        return np.frombuffer(self._map, dtype=dtype, count=count, offset=offset).reshape(shape)

    def __getstate__(self) -> tuple[int, Any]:
        return self.size_bytes, reduction.DupFd(self._handle)

    def __setstate__(self, state: tuple[int, Any]) -> None:
        self.size_bytes, handle = state
        self._handle = handle.detach()
        self._map = mmap.mmap(self._handle, self.size_bytes)

    def close(self) -> None:
        """Gives the handle back; the memory goes when the last array on it goes."""
        os.close(self._handle)


class ProcessWork(Protocol):
    """What travels to a worker process once, by pickling: the slab to write into, and what to do with a job."""

    slab: Slab

    def __call__(self, job: Any, note: Note, /) -> Any:
        """Does one job; jobs and results are small, the bulk goes through the slab."""


def notes_bytes(count: int) -> int:
    """Bytes at the head of the slab in which `count` workers note their rows."""
    return 8 * count


@dataclass(eq=False)
class _Worker:
    number: int
    process: BaseProcess
    line: connection.Connection[Any, Any]
    orders: int = 0  # jobs given and not yet answered
    is_ready: bool = False  # it has said so


_READY: Final = -1  # the number of a worker's first message
_START_S: Final = 120.0  # a fresh Python that imports torch from a slow disk, on a busy machine
_ORDERS: Final = 2  # one in work, one waiting in the pipe


def processes_in_order(work: ProcessWork, jobs: Iterator[Any], count: int, ahead: int, timeout_s: float) -> Generator[Any]:
    """work(job, note) of every job, in `count` fresh processes (start method "spawn": nothing is inherited by accident).

    The death of a worker is noticed at once, without a signal handler that could strike in the middle of a training
    step; workers notice the parent's within two seconds. They stand in process groups of their own, so that Ctrl-C or
    a batch system's SIGTERM to the group lets the parent finish its step. Raises Failed and Stuck.
    """
    context = multiprocessing.get_context("spawn")
    rows_W = work.slab.array(0, (count,), np.int64)
    rows_W[:] = NOTHING
    workers: list[_Worker] = []
    try:
        for number in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(number, count, work, theirs), name=f"loader-{number}", daemon=True)
            process.start()
            theirs.close()
            workers.append(_Worker(number, process, ours))
        yield from _manage(workers, rows_W, jobs, ahead, timeout_s)
    finally:
        for worker in workers:
            worker.line.close()  # an idle worker ends when its pipe does
        until = time.monotonic() + 1.0
        for worker in workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()  # busy with an image that nobody wants any more; it owns nothing that could break
                worker.process.join(_JOIN_S)
        del rows_W


def _manage(
    workers: list[_Worker], rows_W: NDArray[np.int64], jobs: Iterator[Any], ahead: int, timeout_s: float
) -> Iterator[Any]:
    given = taken = 0  # jobs handed out, results yielded
    results: dict[int, Any] = {}
    while True:
        while given - taken < ahead:
            free = min(workers, key=lambda worker: worker.orders)
            if free.orders >= _ORDERS or (job := next(jobs, None)) is None:
                break
            try:
                free.line.send((given, job))
            except OSError:
                raise _death(free, rows_W) from None
            free.orders += 1
            given += 1
        if given == taken:
            return
        if taken in results:
            answer = results.pop(taken)
            taken += 1
            if isinstance(answer, Failed):
                raise answer
            yield answer
            continue
        by_line = {worker.line: worker for worker in workers}
        is_starting = not all(worker.is_ready for worker in workers)
        ready = connection.wait(list(by_line), max(timeout_s, _START_S) if is_starting else timeout_s)
        if not ready:
            busy = [worker for worker in workers if worker.orders]
            names = ", ".join(f"worker {worker.number} (process {worker.process.pid})" for worker in busy)
            raise Stuck(f"no image was finished for {timeout_s:g} s by {names}", [int(row) for row in rows_W if row != NOTHING])
        for line in ready:
            worker = by_line[line]  # type: ignore[index]  # wait() was given these lines only
            try:
                number, results_of = worker.line.recv()
            except (EOFError, OSError):
                raise _death(worker, rows_W) from None
            if number == _READY:
                worker.is_ready = True
            else:
                results[number] = results_of
                worker.orders -= 1


_DEATHS: Final = {
    "SIGKILL": " (often the system, when memory is short)",
    "SIGSEGV": " (a decoder crashed)",
    "SIGBUS": " (memory or a disk was short)",
}


def _death(worker: _Worker, rows_W: NDArray[np.int64]) -> Stuck:
    worker.process.join(_JOIN_S)
    code = worker.process.exitcode
    how = f"ended with exit code {code}"
    if not worker.is_ready:
        how += " as it started (a script that uses worker processes must begin with: if __name__ == '__main__')"
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        how = f"was killed by {name}{_DEATHS.get(name, '')}"
    row = int(rows_W[worker.number])
    others = [int(other) for other in rows_W if other not in (NOTHING, row)]
    return Stuck(f"worker {worker.number} (process {worker.process.pid}) {how}", [row, *others] if row != NOTHING else others)


def _serve(number: int, count: int, work: ProcessWork, line: connection.Connection[Any, Any]) -> None:
    """The life of a worker process."""
    parent = os.getppid()
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    rows_W = work.slab.array(0, (count,), np.int64)

    def note(row: int) -> None:
        rows_W[number] = row

    with contextlib.suppress(OSError):
        line.send((_READY, None))
    while True:
        try:
            order, job = line.recv()
        except (EOFError, OSError):
            return
        try:
            answer = work(job, note)
        except BaseException as error:  # kept whatever it is: the parent raises it with the file's name
            failed = _failed(int(rows_W[number]), error)
            failed.args = (*failed.args[:4], None)  # the exception itself may not be picklable, or not be made again
            failed.error = None
            answer = failed
        rows_W[number] = NOTHING
        try:
            line.send((order, answer))
        except OSError:
            return


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)
