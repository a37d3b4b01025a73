"""Commands of operators: `backup`, `restore`, `prune`. They work on the database and the files, not over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.client import AsJson
from app.cli.printing import print_json, print_value, say
from app.cli.serve import DatabaseUrl, DataDir, database_of, settings_of


def backup(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    with_secret: Annotated[
        bool, typer.Option("--with-secret", help="Also the file key-secret, without which no API key is good.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the database and all files that it points to into a folder, while the service works."""
    from app.upkeep.backup import back_up

    settings = settings_of(data_dir=data_dir, database_url=database_url)
    manifest = back_up(settings, folder, with_secret=with_secret)
    if as_json:
        print_json(manifest)
        return
    held = f"{manifest.studies:,} studies, {manifest.trials:,} trials, {manifest.events:,} events"
    say(f"Backed up {held} and {manifest.files:,} files ({manifest.size_bytes / 1e6:,.1f} MB) into {folder}.")


def restore(
    folder: Annotated[Path | None, typer.Argument(help="What `fettle backup` wrote.")] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="The database was brought back by other programs: only begin it anew.")
    ] = False,
    pause_webhooks: Annotated[
        bool, typer.Option("--pause-webhooks", help="For a copy beside the original: it sends nothing to receivers.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring a backup back into an empty place. Stop all processes of the service first."""
    from app.upkeep.restore import renew_in_place
    from app.upkeep.restore import restore as bring_back

    if (folder is None) != in_place:
        say("fettle: Expected the folder of a backup, or --in-place, and not both.", err=True)
        raise typer.Exit(2)
    settings = settings_of(data_dir=data_dir, database_url=database_url)
    if folder is None:
        with database_of(settings):
            renewed, files, forgotten, datasets = renew_in_place(settings), 0, [], []
    else:
        done = bring_back(settings, folder, pauses_webhooks=pause_webhooks)
        renewed, files, forgotten, datasets = done.renewed, done.files, done.forgotten, done.datasets
    if as_json:
        about = {"restore": renewed.number, "open_studies": renewed.studies, "leases_taken_back": renewed.leases}
        print_value({**about, "files": files, "missing_files": forgotten, "missing_datasets": datasets})
        return
    say(
        f"Restored: {files:,} files, {renewed.studies:,} studies that go on, {renewed.leases:,} trials taken back. "
        f"This is life {renewed.number + 1} of the database."
    )
    for path in forgotten:
        say(f"Not in the backup, superseded while it was made: {path}")
    for digest in datasets:
        say(f"Without its file: the data set with the hash {digest}")


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and delete nothing.")] = False,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="Also files that nothing points to and that are older than a day.")
    ] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Delete what the settings FETTLE_…_RETENTION_DAYS don't keep, now and to the end."""
    from app.store.migrate import check_schema
    from app.upkeep import orphans as files
    from app.upkeep import prune as work

    settings = settings_of(data_dir=data_dir, database_url=database_url)
    age_s = 86_400.0 * (settings.orphan_retention_days or 1.0)
    with database_of(settings) as database:
        check_schema(database)
        if dry_run:
            rows = dict.fromkeys(map(str, work.ages(settings)), 0)
            for one in work.prunable(database, settings):
                rows[one.what] += one.count
            found = list(files.orphans(database, settings, age_s)) if orphans else []
        else:
            rows = {str(what): count for what, count in work.prune(database, settings).items()}
            found = files.collect(database, settings, age_s) if orphans else []
            work.forget_workers(database, settings)
    if as_json:
        listed = [{"path": o.path, "size_bytes": o.size_bytes, "why": o.why, "url": o.url} for o in found]
        print_value({"dry_run": dry_run, "pruned": rows, "orphans": listed})
        return
    verb = "Would delete" if dry_run else "Deleted"
    for what, count in rows.items():
        say(f"{verb} {count:,} {what} of studies that are over.")
    for o in found:
        say(f"{verb} {o.path} ({o.size_bytes:,} bytes): {o.why}.")
    if not rows and not orphans:
        say("Everything is kept for ever: set FETTLE_EVENT_RETENTION_DAYS and the like.")
