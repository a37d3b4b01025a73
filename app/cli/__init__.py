"""The `fettle` command. Each command imports what it needs when it runs, so that all of them start quickly.

Exit codes: 0 fine; 1 the study watched ended FAILED or CANCELLED, or `doctor` found a failure; 2 wrong usage or
settings; 3 no service answered; 4 the service refused; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from app import start
from app.cli import access, client, datasets, doctor, enqueue, external, lineage, results, serve, upkeep, webhooks
from app.cli.printing import say

OK, STUDY_LOST, USAGE, NO_SERVICE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 4, 130

app = typer.Typer(
    name="fettle",
    help="Tune hyperparameters of Keras models: run a service, submit studies to it, watch them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

COMMANDS: tuple[Callable[..., None], ...] = (
    serve.up,
    serve.api,
    serve.worker,
    serve.migrate,
    serve.check,
    doctor.doctor,
    upkeep.backup,
    upkeep.restore,
    upkeep.prune,
    client.validate,
    client.submit,
    client.watch,
    client.studies,
    client.trials,
    client.best,
    lineage.lineage,
    enqueue.enqueue,
    results.export,
    results.importances,
    results.plot,
    results.report,
    results.recipe,
    client.pause,
    client.resume,
    client.stop,
    client.cancel,
    external.ask,
    external.heartbeat,
    external.report_metrics,
    external.tell,
    access.audit,
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(datasets.app, name="datasets")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(access.keys, name="keys")
app.add_typer(access.projects, name="projects")


@app.command()
def version() -> None:
    """Print the version."""
    from app import __version__

    typer.echo(__version__)


def main() -> None:
    """Run the command line and leave with its exit code."""
    start.search_ours_first()
    from app.errors import FettleError

    try:
        app()
    except FettleError as error:
        _leave(error, USAGE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # `fettle trials … | head` closes the pipe on purpose.
        sys.stderr.close()
        sys.exit(OK)
    except Exception as error:
        from app.client import ClientError, ServiceUnavailable

        if not isinstance(error, ClientError):
            raise
        _leave(error, NO_SERVICE if isinstance(error, ServiceUnavailable) else REFUSED)


def _leave(error: Exception, code: int) -> None:
    for line in f"fettle: {error}".split("\n"):
        say(line, err=True)
    sys.exit(code)
