"""What CI prints last: one closing line of several runs of pytest."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUM = ROOT / ".ci" / "sum.py"
QUICK = """...
=========== 3310 passed, 34 skipped, 40 deselected in 548.10s (0:09:08) ============
make: done
"""
BROKEN = """F..
FAILED tests/test_x.py::test_y - assert 3 failed
=========== 1 failed, 20 passed, 2 errors in 12.40s ===========
"""


def total(*texts: str) -> str:
    line: str = runpy.run_path(str(SUM))["total"](list(texts))
    return line.strip("= ")


def test_runs_are_added_up() -> None:
    assert total(QUICK) == "3310 passed, 34 skipped in 548.10s"
    assert total(QUICK, BROKEN) == "1 failed, 3330 passed, 34 skipped, 2 errors in 560.50s"


def test_a_run_that_was_killed_is_an_error() -> None:
    assert total(BROKEN, "...\nTerminated\n") == "1 failed, 20 passed, 3 errors in 12.40s"
    assert total("") == "1 error in 0.00s"


def test_the_script_reads_files(tmp_path: Path) -> None:
    (tmp_path / "test").write_text(QUICK)
    done = subprocess.run([sys.executable, str(SUM), "test"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].startswith("=")
    assert "3310 passed" in done.stdout
