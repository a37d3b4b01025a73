"""`fettle doctor` on this machine: its disks, its device, its address, its libraries, and the command itself."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app import doctor
from app.api.exposure import pepper_of
from app.doctor import Examination, Finding, Status, examine
from app.doctor.database import reached
from app.doctor.devices import device_here
from app.doctor.exposure import address
from app.doctor.libraries import optional_libraries
from app.doctor.storage import places
from app.domain.access import Scope
from app.domain.trial import ArtifactPointer
from app.settings import Settings
from app.store import keys, lifecycle
from app.store.engine import Database
from app.store.tables import Study
from tests.store.conftest import Bench, make_bench, make_sqlite_bench  # noqa: F401
from tests.support.findings import bad, findings, settings_of
from tests.support.processes import ROOT


def test_places_that_cannot_be_written(sqlite_database: Database, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    found = findings(settings_of(sqlite_database, blocked), places)
    assert bad(found) == {
        "data directory": Status.FAILED,
        "artifacts location": Status.FAILED,
        "data sets location": Status.FAILED,
    }
    elsewhere = {"artifact_url": "/proc/fettle", "dataset_url": "nosuchstore://bucket/x"}
    found = findings(settings_of(sqlite_database, tmp_path, **elsewhere), places)
    assert bad(found) == {"artifacts location": Status.FAILED, "data sets location": Status.FAILED}
    assert findings(settings_of(sqlite_database, tmp_path, artifact_url="memory://a"), places).keys() >= {"artifacts"}


def test_a_disk_that_takes_nothing(sqlite_database: Database, tmp_path: Path) -> None:
    """A limit of the operating system on the size of files stands for a full disk: every write fails."""
    folder = tmp_path / "data"
    folder.mkdir()

    def no_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))

    code = (
        "import json, sys\n"
        "from app.doctor import Examination\n"
        "from app.doctor.storage import places\n"
        "from app.settings import Settings\n"
        "examination = Examination(Settings(data_dir=sys.argv[1]))\n"
        "print(json.dumps([f.as_json() for f in places(examination)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], preexec_fn=no_room, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    found = {f["check"]: f["status"] for f in json.loads(done.stdout)}
    assert found["data directory"] == found["artifacts location"] == found["data sets location"] == "failed"
    assert [p for p in folder.rglob("*") if p.is_file()] == []


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.doctor.storage import room

    for free, status in ((10**6, Status.FAILED), (10**9, Status.WARNING), (10**11, Status.OK)):
        usage = shutil._ntuple_diskusage(10**12, 10**12 - free, free)  # type: ignore[attr-defined]
        monkeypatch.setattr("app.doctor.storage.shutil.disk_usage", lambda _folder, u=usage: u)
        assert room(tmp_path).status is status


def test_files_that_are_missing_and_files_that_nobody_has(
    database: Database,
    tmp_path: Path,
    make_bench: Callable[..., Bench],  # noqa: F811
) -> None:
    settings = settings_of(database, tmp_path)
    bench = make_bench()
    (r,) = bench.running()
    path = f"{bench.public_id}/000000/1-{r.token[:12]}/model.keras"
    bench.finish(r, artifacts=(ArtifactPointer("model.keras", path, "a/b", 1, {}),))
    found = findings(settings, places)
    assert bad(found) == {"artifacts": Status.FAILED}
    assert path in found["artifacts"].found
    file = tmp_path / "artifacts" / path
    file.parent.mkdir(parents=True)
    file.write_bytes(b"1")
    orphan = tmp_path / "artifacts" / bench.public_id / "000001" / "1-aaaaaaaaaaaa" / "model.keras"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"1")
    assert bad(findings(settings, places)) == {}, "it may be just being written"
    os.utime(orphan, (1.7e9, 1.7e9))
    assert bad(findings(settings, places)) == {"orphaned files": Status.WARNING}


def tensorflow_that(folder: Path, does: str) -> str:
    """A PYTHONPATH with which every interpreter finds another TensorFlow first of all, as if it were installed."""
    module = folder / "installed" / "tensorflow.py"
    module.parent.mkdir(parents=True)
    module.write_text(f"{does}\n")
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.path.insert(0, {str(module.parent)!r})\n")
    return str(folder)


def test_a_device_that_is_not_there_and_a_tensorflow_that_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tensorflow_that(tmp_path, "raise ImportError('libcudnn.so.9: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", path)
    found = findings(Settings(data_dir=tmp_path, device="cpu"), device_here)
    assert found["device"].status is Status.OK
    assert found["tensorflow"].status is Status.FAILED
    assert "libcudnn.so.9" in found["tensorflow"].found
    found = findings(Settings(data_dir=tmp_path, device="gpu:77"), device_here)
    assert found["device"].status is Status.FAILED
    assert "gpu:77" in found["device"].found


def test_a_tensorflow_that_takes_forever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", tensorflow_that(tmp_path, "import time; time.sleep(600)"))
    monkeypatch.setattr("app.doctor.devices.CHILD_S", 3.0)
    found = findings(Settings(data_dir=tmp_path, device="cpu"), device_here)
    assert (found["tensorflow"].status, found["tensorflow"].found) == (Status.FAILED, "no answer within 3 s")


@pytest.mark.tensorflow
def test_tensorflow_as_it_is_here(tmp_path: Path) -> None:
    found = findings(Settings(data_dir=tmp_path, device="cpu"), device_here)
    assert found["tensorflow"].status is Status.OK
    assert found["tensorflow"].found.startswith("TensorFlow 2.")


def test_an_address_that_others_reach(database: Database, tmp_path: Path) -> None:
    def look(**changes: Any) -> dict[str, Status]:
        return bad(findings(settings_of(database, tmp_path, **changes), address))

    everywhere = {"host": "0.0.0.0"}
    assert look() == {}
    assert look(**everywhere) == {"exposure": Status.FAILED}
    assert look(**everywhere, allow_open=True) == {"exposure": Status.WARNING}
    with database.write() as session:
        new = keys.NewKey("root", "default", [Scope.ADMIN], all_projects=True)
        keys.create_key(session, new, pepper_of(settings_of(database, tmp_path)).ensure())
    assert look(**everywhere) == {}
    assert look(**everywhere, key_secret="another secret of the service, which is long") == {
        "keys": Status.WARNING,
        "exposure": Status.FAILED,
    }
    nowhere = Settings(data_dir=tmp_path / "none", host="0.0.0.0")
    assert bad(findings(nowhere, address)) == {"database": Status.FAILED, "exposure": Status.WARNING}


def test_a_library_that_a_setting_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.doctor.libraries.find_spec", lambda _name: None)
    assert "s3fs" not in bad(findings(Settings(data_dir=tmp_path), optional_libraries))
    found = findings(Settings(data_dir=tmp_path, artifact_url="s3://bucket/models"), optional_libraries)
    assert found["s3fs"].status is Status.FAILED
    assert "fettle[s3]" in found["s3fs"].advice


def test_a_check_that_breaks_is_a_finding_and_the_others_are_made(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_examination: Examination) -> Iterator[Finding]:
        raise RuntimeError("no idea")
        yield

    monkeypatch.setattr(doctor, "GROUPS", (broken, reached, address))
    examination = Examination(settings_of(sqlite_database, tmp_path))
    try:
        found = {f.check: f for f in examine(examination)}
    finally:
        examination.close()
    assert found["broken"].status is Status.FAILED
    assert "no idea" in found["broken"].found
    assert found["exposure"].status is Status.OK


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FETTLE_")}
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        capture_output=True,
        text=True,
        env=environment | variables,
        cwd=ROOT,
        timeout=170,
    )


def test_the_command_speaks_to_people_and_programs_and_says_by_its_exit_code(
    sqlite_database: Database, tmp_path: Path
) -> None:
    path = tensorflow_that(tmp_path / "modules", "raise ImportError('broken on purpose')")
    done = command("doctor", "--data-dir", str(tmp_path), "--json", PYTHONPATH=path)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["ok"]) == (1, False), done.stderr
    wrong = [check for check in answer["checks"] if check["status"] != "ok"]
    assert [(check["check"], check["status"]) for check in wrong] == [("tensorflow", "failed")]
    assert set(wrong[0]) == {"check", "status", "expected", "found", "advice"}
    done = command("doctor", "--data-dir", str(tmp_path), PYTHONPATH=path)
    assert done.returncode == 1
    assert "broken on purpose" in done.stdout
    assert "1 failed." in done.stdout


def test_backup_restore_and_prune_from_the_command_line(
    sqlite_database: Database,
    tmp_path: Path,
    make_sqlite_bench: Callable[..., Bench],  # noqa: F811
) -> None:
    bench = make_sqlite_bench()
    bench.act(lifecycle.cancel)
    with sqlite_database.write() as session:
        session.execute(update(Study).values(finished_at=Study.finished_at - 1e6))
    here, there, kept = str(tmp_path), str(tmp_path / "there"), str(tmp_path / "kept")
    assert command("backup", kept, "--data-dir", here).returncode == 0
    assert command("backup", kept, "--data-dir", here).returncode == 2
    assert command("restore", "--data-dir", there).returncode == 2
    restored = command("restore", kept, "--data-dir", there, "--json")
    assert json.loads(restored.stdout)["open_studies"] == 0, restored.stderr
    days = {"FETTLE_EVENT_RETENTION_DAYS": "10"}
    dry = command("prune", "--dry-run", "--orphans", "--data-dir", there, "--json", **days)
    assert json.loads(dry.stdout) == {"dry_run": True, "pruned": {"events": 1}, "orphans": []}
    done = command("prune", "--data-dir", there, **days)
    assert done.stdout == "Deleted 1 events of studies that are over.\n", done.stderr
    assert "for ever" in command("prune", "--data-dir", there).stdout
