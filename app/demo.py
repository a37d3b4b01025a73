"""A whole round in one command: start a service, tune a small network on it over HTTP, show the result, stop it.

`python -m app.demo [definition.json]`, run where the examples lie. What it wrote stays in a fresh directory.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from app import start
from app.cli.live import show
from app.cli.scoreboard import duration_words, number_words, values_words
from app.client import ClientError, FettleClient, Study

EXAMPLE = Path("examples/digits-mlp.json")
STOP_S = 45.0
"""A service that has not stopped by then is killed."""


def main() -> None:
    """Run the demonstration; leaves with 1 where anything went wrong, and says where the service's log is."""
    example = Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLE
    if not example.is_file():
        sys.exit(f"fettle: Expected a study definition at {example}. Run this where the examples lie: `make demo`.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a termination stops the service too
    data = Path(tempfile.mkdtemp(prefix="fettle-data-demo-", dir=Path.cwd()))
    log = data / "service.log"
    began = time.monotonic()
    try:
        with _service(data, log) as url, FettleClient(url) as client:
            typer.echo(f"A service with one worker runs at {url}; its files lie in {data}")
            study = client.create_study(json.loads(example.read_text(encoding="utf-8")))
            typer.echo(f"Submitted {example} as study {study.id}. The first trials wait for TensorFlow to load.")
            board = show(study, client.events(study.id))
            done = client.study(study.id)
            if done.state != "COMPLETED":
                sys.exit(f"fettle: Expected the study to complete. Received: {done.state}: {done.state_reason}")
            _report(client, done, data)
            typer.echo(f"\n{board.done} trials in {duration_words(time.monotonic() - began)}, service included.")
    except (ClientError, OSError) as error:
        sys.exit(f"fettle: {error}\nThe service's log: {log}")
    except KeyboardInterrupt:
        typer.echo("fettle: interrupted; the service has stopped.", err=True)
        sys.exit(130)
    typer.echo("The service has stopped. To keep one running: make serve, then fettle submit examples/digits-mlp.json")


@contextmanager
def _service(data: Path, log: Path) -> Iterator[str]:
    """The address of a service of our own, ready; stopped with all its workers at the end of the block."""
    command = start.command("app", "up", "--port", "0", "--data-dir", str(data))
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, process_group=0)  # noqa: S603
    try:
        url = _address(process, log)
        with FettleClient(url) as client:
            client.wait_ready()
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path, timeout_s: float = 60.0) -> str:
    """The address that the service prints once it listens."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = re.search(r"serving at (http://\S+)", log.read_text(encoding="utf-8", errors="replace"))
        if found:
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise OSError(f"Expected a service to start. Received: {log.read_text(encoding='utf-8', errors='replace')[-2000:]}")


def _report(client: FettleClient, study: Study, data: Path) -> None:
    """Print the best trial, its hyperparameters and where its model lies."""
    best = client.best(study.id)
    if not best:
        raise OSError("Expected a best trial. Received none: every trial failed or broke a constraint.")
    trial = best[0]
    typer.echo(f"\nBest of {study.progress.finished} trials is trial {trial.number}: {values_words(trial.values)}")
    for name, value in trial.sampled.items():
        typer.echo(f"  {name:<16} {number_words(value)}")
    fixed = {name: value for name, value in trial.hyperparameters.items() if name not in trial.sampled}
    typer.echo(f"  Not searched: {values_words(fixed)}")
    models = [artifact for artifact in client.artifacts(study.id, trial.number) if artifact.name == "model.keras"]
    if models:
        saved = client.download_artifact(study.id, trial.number, "model.keras", data / "model.keras")
        typer.echo(f"Its model, loadable with keras.saving.load_model: {saved} ({saved.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
