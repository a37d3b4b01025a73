"""Our processes start here, past whatever else is called as our modules are.

`python -P app/start.py MODULE ARGUMENTS` does what `python -m MODULE ARGUMENTS` does, but never looks for modules in
the current folder, and in those of PYTHONPATH last of all: an `app.py`, a `worker.py` or a `random.py` of a user's own
stays theirs, while plugins that are on PYTHONPATH are found. The interpreter itself sees PYTHONPATH as ever.

It is run as a file, and imports nothing that isn't loaded anyway before the order is right. Not even `__future__`.
"""

# pathlib would be looked for in the order that is to be mended.
# ruff: noqa: PTH100, PTH109, PTH120

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The folder that our packages lie in."""


def command(module: str, *arguments: str) -> list[str]:
    """What starts one of our modules in a process of its own: the arguments of `subprocess.Popen`."""
    return [sys.executable, "-P", os.path.abspath(__file__), module, *arguments]


def search_ours_first() -> None:
    """Search the folders of PYTHONPATH last, and the current one, where Python put it first."""
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    others = {os.path.abspath(path) for path in named if path}
    if not sys.flags.safe_path:
        others.add(os.getcwd())
    others.discard(ROOT)
    last = [path for path in sys.path if os.path.abspath(path) in others]
    sys.path[:] = [path for path in sys.path if path not in last] + last


if __name__ == "__main__":
    search_ours_first()
    import runpy

    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
