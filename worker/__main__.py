"""`python -m worker`: one worker process, configured by `FETTLE_*` variables and the options here."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import structlog
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError

from app import logs
from app.errors import FettleError
from app.settings import Settings
from app.store.presence import is_moved
from worker.checkup import checkup
from worker.device import DeviceError
from worker.supervisor import Supervisor, TrainerBroken

log = structlog.get_logger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Run a worker until it is told to stop; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m worker", description="Run trials of a Fettle service.")
    parser.add_argument("--data-dir", help="joins the service whose data directory this is")
    parser.add_argument("--database-url", help="joins the service whose database this is")
    parser.add_argument("--artifact-url", help="where artifacts are written (fsspec)")
    parser.add_argument("--device", help="auto, cpu, gpu or gpu:<index>")
    parser.add_argument("--families", help="comma-separated families to offer")
    parser.add_argument("--labels", dest="worker_labels", help="comma-separated key=value labels to offer")
    parser.add_argument(
        "--drained-status", type=int, default=0, help="exit status where it was drained over HTTP, not by a signal"
    )
    parser.add_argument("--check", action="store_true", help="say as JSON what a worker would find here, and end")
    options = vars(parser.parse_args(arguments))
    is_check, drained_status = options.pop("check"), options.pop("drained_status")
    given = {name: value for name, value in options.items() if value is not None}
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)  # until the supervisor takes them: while the database is waited for
    try:
        settings = Settings(**given)
        logs.configure(settings)
        if is_check:
            sys.stdout.write(f"{json.dumps(checkup(settings.device))}\n")
            return 0
        supervisor = Supervisor(settings)
        supervisor.check()
    except (DeviceError, FettleError, ValidationError, ValueError) as error:
        return _refused(error)
    try:
        supervisor.run()
    except TrainerBroken as error:
        return _refused(error)
    except DBAPIError as error:
        if is_moved(error.orig):
            # Whoever starts it again has it work with the database that is there now.
            sys.stderr.write(f"fettle worker: {error.orig}\n")
            return 1
        misfit = supervisor.why_misfit()
        if misfit is None:
            raise
        log.warning("statement_failed", error=str(error.orig))
        return _refused(misfit)
    if supervisor.misfit is not None:
        return _refused(supervisor.misfit)
    return drained_status if supervisor.drained_on_request else 0


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Nothing has begun: end at once."""
    sys.exit(0)


def _refused(error: Exception | str) -> int:
    """Say why no worker can run with this configuration; 2, so that nobody starts it again unchanged."""
    sys.stderr.write(f"fettle worker: {error}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
