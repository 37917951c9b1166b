"""Hands that keep the order, end with their generator, and say what they were busy with."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from striate.data import crew
from striate.data.crew import Failed, ProcessWork, Slab, Stuck

# What the worker processes do, in a module that they can import: each job is (kind, number).
_WORK = """
import os, signal, time

class Odd(Exception):
    def __init__(self, first, second):
        super().__init__(f"odd {first} {second}")

class Work:
    def __init__(self, slab):
        self.slab = slab

    def __call__(self, job, note):
        kind, number = job
        note(number)
        if kind == "hang":
            time.sleep(1000)
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "leave":
            os._exit(3)
        if kind == "raise":
            raise Odd("text", number)
        if kind == "slow":
            time.sleep(0.1)
        self.slab.array(4096, (64,), "int64")[number] = number * number
        return number, os.getpid(), os.getpgid(0)
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessWork]:
    (tmp_path / "crew_work.py").write_text(_WORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "crew_work", raising=False)
    import crew_work  # type: ignore[import-not-found]

    slab = Slab(8192)
    yield crew_work.Work(slab)
    slab.close()


def alive(process: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


# ---------------------------------------------------------------- threads


@pytest.mark.parametrize("count", [0, 1, 4])
def test_results_come_in_the_order_of_the_jobs(count: int) -> None:
    def work(job: int, note: crew.Note) -> int:
        time.sleep(0.01 * (job % 3 == 0))
        return job * job

    assert list(crew.threads_in_order(work, iter(range(20)), count, 7, 5.0)) == [job * job for job in range(20)]


def test_no_job_is_taken_too_early() -> None:
    taken: list[int] = []

    def jobs() -> Iterator[int]:
        for job in range(100):
            taken.append(job)
            yield job

    results = crew.threads_in_order(lambda job, _: job, jobs(), 2, 5, 5.0)
    assert next(results) == 0
    assert taken == [0, 1, 2, 3, 4]
    results.close()


def test_slow_is_not_hanging() -> None:
    def work(job: int, note: crew.Note) -> int:
        time.sleep(0.2 * (job + 1))
        return job

    # The last job is done after 0.8 s, the limit is 0.5 s: but something is finished every 0.2 s.
    assert list(crew.threads_in_order(work, iter([3, 0, 1, 2]), 4, 4, timeout_s=0.5)) == [3, 0, 1, 2]


@pytest.mark.parametrize("count", [0, 2])
def test_a_job_that_raises_is_named_at_its_turn(count: int) -> None:
    def work(job: int, note: crew.Note) -> int:
        note(100 + job)
        if job == 3:
            raise KeyError("three")
        return job

    results = crew.threads_in_order(work, iter(range(9)), count, 9, 5.0)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(Failed) as caught:
        next(results)
    assert (caught.value.row, caught.value.type_name, caught.value.text) == (103, "KeyError", "'three'")
    assert isinstance(caught.value.__cause__, KeyError)


def test_t10_a_process_with_a_hanging_thread_can_end() -> None:
    program = """
import time
from striate.data import crew
def work(job, note):
    note(job)
    time.sleep(1000)
try:
    next(crew.threads_in_order(work, iter([42]), 1, 1, 0.2))
except crew.Stuck as error:
    print(error.rows)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[42]\n"


# ---------------------------------------------------------------- processes


def test_processes_keep_the_order_and_share_the_slab(work: ProcessWork) -> None:
    jobs = iter([("slow" if number % 4 == 0 else "plain", number) for number in range(20)])
    results = list(crew.processes_in_order(work, jobs, 2, 6, 60.0))
    assert [number for number, _, _ in results] == list(range(20))
    np.testing.assert_array_equal(work.slab.array(4096, (64,), np.int64)[:20], np.arange(20) ** 2)
    groups = {group for _, _, group in results}
    assert os.getpgid(0) not in groups  # Ctrl-C in the terminal does not reach them
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("kind", "how"), [("die", "was killed by SIGKILL"), ("leave", "exit code 3")])
def test_t09_a_dead_worker_is_noticed_at_once(kind: str, how: str, work: ProcessWork) -> None:
    results = crew.processes_in_order(work, iter([("plain", 1), (kind, 7), ("plain", 2)]), 1, 3, 120.0)
    begin = time.monotonic()
    with pytest.raises(Stuck, match=how) as caught:  # perhaps before the first result is handed on: the run ends in any case
        list(results)
    assert time.monotonic() - begin < 60  # half the time that a hang is given; most of it is the worker's start
    assert caught.value.rows == [7]
    assert "worker 0" in caught.value.reason


def test_t10_a_hanging_worker_is_named_and_ended(work: ProcessWork) -> None:
    results = crew.processes_in_order(work, iter([("plain", 1), ("hang", 7)]), 1, 2, 60.0)
    _, process, _ = next(results)
    results.close()
    assert not alive(process)
    with pytest.raises(Stuck, match=r"no image was finished for 0\.5 s by worker 0") as caught:
        list(crew.processes_in_order(work, iter([("hang", 7)]), 1, 2, timeout_s=0.5))
    assert caught.value.rows == [7]
    assert not multiprocessing.active_children()


def test_t12_an_odd_exception_keeps_its_text(work: ProcessWork) -> None:
    results = crew.processes_in_order(work, iter([("plain", 1), ("raise", 7)]), 1, 2, 60.0)
    next(results)
    with pytest.raises(Failed) as caught:
        next(results)
    assert (caught.value.row, caught.value.type_name, caught.value.text) == (7, "Odd", "odd text 7")
    assert "crew_work.py" in caught.value.trace


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memfd")
def test_t11_dev_shm_is_not_used() -> None:
    slab = Slab(1 << 20)
    assert "/dev/shm" not in os.readlink(f"/proc/self/fd/{slab._handle}")
    slab.close()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks into /proc")
def test_t17_workers_go_when_the_parent_is_killed(work: Any, tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import sys, time
            sys.path[:0] = [{str(tmp_path)!r}]
            from crew_work import Work
            from striate.data import crew

            if __name__ == "__main__":
                jobs = iter([("plain", 0), ("hang", 1)])
                results = crew.processes_in_order(Work(crew.Slab(8192)), jobs, 1, 2, 60.0)
                print(next(results)[1], flush=True)
                time.sleep(1000)
            """
        )
    )
    shared_before = set(os.listdir("/dev/shm"))
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        line = parent.stdout.readline()
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        worker = int(line)
        begin = time.monotonic()
        while alive(worker):
            assert time.monotonic() - begin < 10
            time.sleep(0.05)
    assert not [name for name in os.listdir("/dev/shm") if name not in shared_before and "striate" in name]


def test_a_script_without_a_guard_gets_a_hint(work: Any, tmp_path: Path) -> None:
    program = tmp_path / "unguarded.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path[:0] = [{str(tmp_path)!r}]
            from crew_work import Work
            from striate.data import crew
            try:
                list(crew.processes_in_order(Work(crew.Slab(8192)), iter([("plain", 0)]), 1, 2, 60.0))
            except crew.Stuck as error:
                print(error.reason)
            """
        )
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=True, timeout=60)
    assert "if __name__ == '__main__'" in done.stdout
