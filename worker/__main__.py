"""`python -m worker`: one worker process, configured by `FETTLE_*` variables and the options here."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import structlog
from pydantic import ValidationError

from app.errors import FettleError
from app.settings import Settings
from worker.checkup import checkup
from worker.device import DeviceError
from worker.supervisor import Supervisor, TrainerBroken


def main(arguments: Sequence[str]) -> int:
    """Run a worker until it is told to stop; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m worker", description="Run trials of a Fettle service.")
    parser.add_argument("--data-dir", help="joins the service whose data directory this is")
    parser.add_argument("--database-url", help="joins the service whose database this is")
    parser.add_argument("--artifact-url", help="where artifacts are written (fsspec)")
    parser.add_argument("--device", help="auto, cpu, gpu or gpu:<index>")
    parser.add_argument("--families", help="comma-separated families to offer")
    parser.add_argument("--labels", dest="worker_labels", help="comma-separated key=value labels to offer")
    parser.add_argument("--check", action="store_true", help="say as JSON what a worker would find here, and end")
    options = vars(parser.parse_args(arguments))
    is_check = options.pop("check")
    given = {name: value for name, value in options.items() if value is not None}
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        if is_check:
            sys.stdout.write(f"{json.dumps(checkup(Settings(**given).device))}\n")
            return 0
        supervisor = Supervisor(Settings(**given))
        supervisor.check()
    except (DeviceError, FettleError, ValidationError, ValueError) as error:
        return _refused(error)
    try:
        supervisor.run()
    except TrainerBroken as error:
        return _refused(error)
    return 0


def _refused(error: Exception) -> int:
    """Say why no worker can run with this configuration; 2, so that nobody starts it again unchanged."""
    sys.stderr.write(f"fettle worker: {error}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
