"""`fettle webhooks`: list receivers of events, add one, try it, pause and resume it, delete it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.client import LOCAL, ApiKey, AsJson, Url, connect, time_text
from app.cli.printing import print_items, print_json, print_table, say

if TYPE_CHECKING:
    from app.client import Webhook

app = typer.Typer(
    help="Receivers of events: add, list, test, pause, delete.", add_completion=False, rich_markup_mode=None
)

WebhookId = Annotated[str, typer.Argument(metavar="WEBHOOK", help="The webhook's id.")]


@app.callback(invoke_without_command=True)
def webhooks(context: typer.Context, url: Url = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List the project's webhooks."""
    if context.invoked_subcommand is not None:
        return
    with connect(url, api_key) as client:
        found = list(client.webhooks())
    if as_json:
        print_items(found)
        return
    print_table(
        ("STATE", "URL", "EVENTS", "STUDY", "FAILURES", "DELIVERED", "ID"),
        [
            (w.state, w.url, ",".join(w.events) or "all", w.study_id or "-", str(w.failures),
             time_text(w.last_delivered_at) if w.last_delivered_at else "-", w.id)
            for w in found
        ],
    )  # fmt: skip


@app.command()
def add(
    receiver: Annotated[str, typer.Argument(metavar="RECEIVER", help="The URL that events are sent to.")],
    event: Annotated[list[str] | None, typer.Option(help="A type of events; all if left out. May be repeated.")] = None,
    study: Annotated[str | None, typer.Option(help="The study, by name or id; all if left out.")] = None,
    secret: Annotated[
        str | None,
        typer.Option(
            envvar="FETTLE_WEBHOOK_SECRET", show_envvar=False, help="whsec_…; the service makes one if left out."
        ),
    ] = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Have events sent to a URL from now on, and print the secret that they are signed with: it is shown once."""
    with connect(url, api_key) as client:
        study_id = client.find_study(study).id if study is not None else None
        created = client.create_webhook(receiver, events=event or (), study_id=study_id, secret=secret)
    if as_json:
        print_json(created)
        return
    say(f"Webhook {created.id} sends to {created.url}.")
    say(f"Secret: {created.secret}")


@app.command()
def show(webhook: WebhookId, url: Url = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Print a webhook's state, and what was wrong last."""
    with connect(url, api_key) as client:
        _show(client.webhook(webhook), as_json)


@app.command(name="test")
def try_out(webhook: WebhookId, url: Url = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Send a test message now. Exit code 1 where the receiver does not take it."""
    with connect(url, api_key) as client:
        told = client.send_test(webhook)
    if as_json:
        print_json(told)
    else:
        say(f"The receiver answered {told.status}." if told.delivered else f"Not delivered: {told.error}")
    if not told.delivered:
        raise typer.Exit(1)


@app.command()
def pause(webhook: WebhookId, url: Url = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Send nothing until it is resumed; what happens meanwhile is sent then."""
    with connect(url, api_key) as client:
        _show(client.pause_webhook(webhook), as_json)


@app.command()
def resume(webhook: WebhookId, url: Url = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Send again, from where it ended: after a pause, or after it was disabled."""
    with connect(url, api_key) as client:
        _show(client.resume_webhook(webhook), as_json)


@app.command()
def delete(webhook: WebhookId, url: Url = LOCAL, api_key: ApiKey = None) -> None:
    """Forget a webhook; what was not sent yet is not."""
    with connect(url, api_key) as client:
        client.delete_webhook(webhook)
    say(f"Webhook {webhook} is deleted.")


def _show(webhook: Webhook, as_json: bool) -> None:
    if as_json:
        print_json(webhook)
        return
    say(f"Webhook {webhook.id} sends to {webhook.url}: {webhook.state}.")
    for text in (webhook.state_reason, webhook.last_error):
        if text:
            say(f"  {text}")
