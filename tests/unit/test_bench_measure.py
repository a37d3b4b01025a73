"""CPU and memory are those of a process and all its descendants, orphans and ended ones included."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from bench.measure import Usage, processes, usage_of
from tests.support.processes import wait_for

DEADLINE_S = 60.0
BUSY = "while True: pass"
LARGE = "x = bytearray(100_000_000); print('there', flush=True); input()"
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


@contextmanager
def running(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process in a session of its own, which is ended with all that it started."""
    command = [sys.executable, "-c", code, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        for member in reversed(processes(process.pid)):
            member.kill()
        process.communicate()


def test_a_childs_work_counts_from_the_start_of_the_window() -> None:
    with running(PARENT, BUSY) as parent:
        wait_for(lambda: len(processes(parent.pid)) == 2)
        child = processes(parent.pid)[1]
        wait_for(lambda: child.cpu_times().user > 0.3)
        before = child.cpu_times().user
        with usage_of(parent.pid) as usage:
            wait_for(lambda: child.cpu_times().user > before + 0.3)
        after = child.cpu_times().user + child.cpu_times().system
        assert 0.25 < usage.cpu_s <= after - before + 0.1


def test_what_an_ended_child_used_is_kept() -> None:
    with running(PARENT, BUSY) as parent:
        wait_for(lambda: len(processes(parent.pid)) == 2)
        child = processes(parent.pid)[1]
        usage = Usage(parent.pid).start()
        wait_for(lambda: usage.cpu_s > 0.2)
        child.kill()
        parent.wait(DEADLINE_S)
        usage.stop()
        assert usage.cpu_s > 0.2


def test_memory_is_the_greatest_sum_over_the_tree() -> None:
    with running("import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])", LARGE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "there\n"
        with usage_of(parent.pid) as usage:
            pass
        own = psutil.Process(parent.pid).memory_info().rss / 1e6
        assert usage.peak_mb > own + 100


def test_a_process_that_is_gone_uses_nothing() -> None:
    with running("pass") as process:
        process.wait(DEADLINE_S)
        with usage_of(process.pid) as usage:
            pass
    assert processes(process.pid) == []
    assert (usage.cpu_s, usage.peak_mb) == (0.0, 0.0)


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux alone")
def test_orphans_stay_in_sight_once_they_are_adopted() -> None:
    leave = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL).pid)"
    script = f"""
import os, subprocess, sys, psutil
from bench.measure import adopt_orphans, processes
adopt_orphans()
command = [sys.executable, "-c", {leave!r}, sys.executable, "-c", {BUSY!r}]
pid = int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
found = [process for process in processes(os.getpid()) if process.pid == pid]
print(len(found), psutil.Process(pid).ppid() == os.getpid())
psutil.Process(pid).kill()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.stdout == "1 True\n", done.stderr
