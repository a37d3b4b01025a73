"""Other versions of Fettle, made of copies of this one's code: with a migration more, or with the last one removed.

They are real code in processes of their own; what they believe the newest revision to be is what a release of theirs
would.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.store.migrate import HEAD
from tests.store.revisions import REVISIONS
from tests.support.processes import ROOT

NEXT = f"{int(HEAD) + 1:04d}"
MIGRATION = '''"""A migration of a later release"""
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "{revision}", "{head}", None, None
{said}

def upgrade() -> None:
{upgrade}


def downgrade() -> None:
{downgrade}
'''
ADDED = 'op.add_column("fettle_workers", sa.Column("later", sa.Text(), nullable=True))'
TAKEN_BACK = 'op.drop_column("fettle_workers", "later")'
RENAMED = 'op.execute("ALTER TABLE fettle_trials RENAME COLUMN lease_token TO lease")'
NAMED_BACK = 'op.execute("ALTER TABLE fettle_trials RENAME COLUMN lease TO lease_token")'


@dataclass(frozen=True)
class Tree:
    """A copy of the code."""

    folder: Path

    def environment(self, **settings: Any) -> dict[str, str]:
        """What its processes find: its own code, and these settings."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FETTLE_")}
        given = {f"FETTLE_{name.upper()}": str(value) for name, value in settings.items()}
        return kept | {"PYTHONPATH": str(self.folder)} | given

    def run(self, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        """A command of this version."""
        return subprocess.run(
            [sys.executable, "-m", "app", *arguments],
            env=self.environment(**settings),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def start(self, log: Path, module: str, *arguments: str, **settings: Any) -> subprocess.Popen[bytes]:
        """A process of this version that goes on, with its output in a file."""
        with log.open("wb") as file:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=self.environment(**settings),
                cwd=self.folder,
                stdout=file,
                stderr=file,
            )

    def change(self, path: str, changes: Mapping[str, str]) -> None:
        """Replace text of a file; each must be there."""
        file = self.folder / path
        text = file.read_text()
        for old, new in changes.items():
            assert old in text, (path, old)
            text = text.replace(old, new)
        file.write_text(text)


def copied(folder: Path) -> Tree:
    """This version's code, in a folder of its own."""
    for name in ("app", "worker", "migrations"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return Tree(folder)


def older(folder: Path) -> Tree:
    """The version before the last migration."""
    tree = copied(folder)
    (last,) = (tree.folder / "migrations" / "versions").glob(f"{HEAD}_*.py")
    last.unlink()
    tree.change("app/store/migrate.py", {f'HEAD = "{HEAD}"': f'HEAD = "{REVISIONS[-2]}"'})
    return tree


def newer(folder: Path, *, keeps_old_code: bool, upgrade: str = "", downgrade: str = "") -> Tree:
    """A version with a migration more: one that the code of this version can go on with, or one that it can't."""
    tree = copied(folder)
    up, down = (ADDED, TAKEN_BACK) if keeps_old_code else (RENAMED, NAMED_BACK)
    said = f'compatible_from = "{HEAD}"\n' if keeps_old_code else ""
    text = MIGRATION.format(
        revision=NEXT,
        head=HEAD,
        said=said,
        upgrade=_indented(upgrade or up),
        downgrade=_indented(downgrade or down),
    )
    (tree.folder / "migrations" / "versions" / f"{NEXT}_later.py").write_text(text)
    tree.change("app/store/migrate.py", {f'HEAD = "{HEAD}"': f'HEAD = "{NEXT}"'})
    return tree


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
