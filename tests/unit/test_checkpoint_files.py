"""Snapshots on their way to the artifact location and back, where it is on this machine and where it isn't."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from worker.artifacts import ArtifactWriter
from worker.trainer.protocol import KeptSnapshot


@pytest.fixture(params=["here", "elsewhere"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "artifacts") if request.param == "here" else f"memory://{tmp_path.name}"


@pytest.fixture
def writer(location: str) -> Iterator[ArtifactWriter]:
    writer = ArtifactWriter(location)
    yield writer
    writer.close()


def stored(location: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(location)
    return list(files.find(root)) if files.exists(root) else []


def test_each_snapshot_has_a_folder_of_its_own_and_can_be_read_until_it_is_removed(
    writer: ArtifactWriter, location: str
) -> None:
    pointers = []
    for epochs in (3, 6):
        path = writer.scratch_snapshot("token")
        Path(path).write_bytes(b"x" * epochs)
        kept = KeptSnapshot(member=0, path=path, epochs=epochs, size_bytes=epochs)
        pointers.append(writer.publish_snapshot("st_1/000004/1-abc", kept))
        assert not Path(path).exists()
    assert [p.path for p in pointers] == [f"st_1/000004/1-abc-epoch-{e}/state.npz" for e in (3, 6)]
    writer.remove([pointers[0].path])
    assert [path.endswith("1-abc-epoch-6/state.npz") for path in stored(location)] == [True]
    copy = writer.fetch(pointers[1].path)
    assert Path(copy).read_bytes() == b"x" * 6
    writer.let_go(copy)
    assert len(stored(location)) == 1  # a copy is let go of, never the file itself
    with pytest.raises(FileNotFoundError):
        writer.fetch(pointers[0].path)
    assert writer.scratch_snapshot("token") != writer.scratch_snapshot("token")
