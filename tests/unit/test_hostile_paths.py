"""Files that are named by others: URIs of data sets, and what a trainer asks its worker to publish."""

from __future__ import annotations

import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from app.data.roots import Named, TooLarge, locate, open_resolved, roots_of
from app.errors import InvalidDataset
from worker.artifacts import ArtifactWriter
from worker.trainer.protocol import KeptFile, KeptModel, KeptSnapshot

CONTENT = b"x,y\n1,a\n2,b\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A root `data` with a file, and secrets beside it, one of them in a folder whose name begins like the root's."""
    for folder in ("data", "data/in", "data-evil", "outside"):
        (tmp_path / folder).mkdir()
    (tmp_path / "data" / "in" / "a.csv").write_bytes(CONTENT)
    for folder in ("data-evil", "outside"):
        (tmp_path / folder / "secret.csv").write_bytes(b"secret")
    (tmp_path / "data" / "link.csv").symlink_to(tmp_path / "outside" / "secret.csv")
    (tmp_path / "data" / "folder").symlink_to(tmp_path / "outside")
    (tmp_path / "data" / "inner.csv").symlink_to(tmp_path / "data" / "in" / "a.csv")
    os.mkfifo(tmp_path / "data" / "pipe.csv")
    return tmp_path


def test_a_file_below_a_root_is_found_also_by_a_link_within(place: Path) -> None:
    roots = [f"file://{place}/data"]
    for name in ("in/a.csv", "inner.csv", "in/../in/a.csv".replace("../in/", ""), "in//a.csv", "./in/a.csv"):
        named = locate(f"file://{place}/data/{name}", roots)
        assert named == Named("file", str(place / "data" / "in" / "a.csv"))
        named.copy(place / "copy", 100)
        assert (place / "copy").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd", "file:////etc/passwd", "file://@/data-evil/secret.csv", "file://@/outside/secret.csv",
        "file://@/data/../outside/secret.csv", "file://@/data/%2e%2e/outside/secret.csv",
        "file://@/data/%2E%2E%2Foutside/secret.csv", "file://@/data/..%2foutside/secret.csv",
        "file://@/data/in/a.csv%00.csv", "file://@/data/in/a.csv\0", "file://@/data/link.csv",
        "file://@/data/folder/secret.csv", "file://@/data/pipe.csv", "file://@/data/in", "file://@/data",
        "file://@/data/none.csv", "file://localhost@/data/in/a.csv", "file://user@host/data/in/a.csv",
        "file:@/data/in/a.csv", "@/data/in/a.csv", "FILE://@/data/in/a.csv", "file://@/data/in/a.csv?x=1",
        "file://@/data/in/a.csv#x", "file://@/data/in\\..\\a.csv", "file://@/data/in/ a.csv",
        "http://169.254.169.254/latest/meta-data/", "https://127.0.0.1/a.csv", "ftp://127.0.0.1/a.csv",
        "sftp://127.0.0.1/a.csv", "ssh://127.0.0.1/a.csv", "smb://127.0.0.1/a.csv", "memory://a.csv",
        "memory:///a.csv", "github://owner:repo@main/a.csv", "gist://a.csv", "git:///a.csv", "local://@/data/in/a.csv",
        "dir://@/data/in/a.csv", "data://text/csv,x", "data:text/csv,x", "zip://a.csv::file://@/data/in/a.csv",
        "tar://a.csv::file://@/data/in/a.csv", "simplecache::file://@/data/in/a.csv",
        "filecache::file://@/data/in/a.csv", "blockcache::http://127.0.0.1/a.csv", "reference://a",
        "file://@/data/in/a.csv::zip://x", "s3://bucket/a.csv", "gs://bucket/a.csv", "hdfs://host/a.csv",
        "jupyter://127.0.0.1/a.csv", "dask://a.csv", "libarchive://a::file://@/data/in/a.csv", "hf://datasets/a/a.csv",
        "oci://a/a.csv", "webhdfs://169.254.169.254/a.csv", "", "file://", "://", "file", "a" * 3_000,
    ],
)  # fmt: skip
def test_a_uri_that_leads_elsewhere_is_refused(place: Path, uri: str) -> None:
    roots = [f"file://{place}/data"]
    with pytest.raises(InvalidDataset) as refused:
        locate(uri.replace("@/", f"{place}/"), roots)
    assert "secret\n" not in str(refused.value)


def test_roots_of_a_store_end_where_their_names_end() -> None:
    roots = roots_of("s3://lake/tables, memory://in/")
    assert locate("s3://lake/tables/a.csv", roots).path == "lake/tables/a.csv"
    for uri in (
        "s3://lake/tables-evil/a.csv", "s3://lake/tablesa.csv", "s3://lake/tables", "s3://lake/a.csv",
        "s3://lake/tables/../secret.csv", "s3://lake/tables/%2e%2e/secret.csv", "s3://other/lake/tables/a.csv",
        "s3://user@lake/tables/a.csv", "memory://in-evil/a.csv", "memory://ina.csv", "file:///lake/tables/a.csv",
    ):  # fmt: skip
        with pytest.raises(InvalidDataset):
            locate(uri, roots)


@pytest.mark.parametrize("swap", ["file", "folder", "pipe"])
def test_a_path_that_becomes_a_link_after_it_was_judged_is_not_followed(place: Path, swap: str) -> None:
    named = locate(f"file://{place}/data/in/a.csv", [f"file://{place}/data"])
    folder = place / "data" / "in"
    if swap == "folder":
        folder.rename(place / "data" / "moved")
        folder.symlink_to(place / "outside")
        (place / "outside" / "a.csv").write_bytes(b"secret")
    else:
        (folder / "a.csv").unlink()
        if swap == "file":
            (folder / "a.csv").symlink_to(place / "outside" / "secret.csv")
        else:
            os.mkfifo(folder / "a.csv")
    with pytest.raises(OSError, match=r"symbolic link|Not a directory|something else"):
        named.copy(place / "copy", 1_000)
    assert not (place / "copy").exists() or (place / "copy").read_bytes() == b""


def test_a_link_that_is_swapped_in_and_out_for_ever_never_leads_out(place: Path) -> None:
    roots = [f"file://{place}/data"]
    target, other = place / "data" / "in" / "a.csv", place / "data" / "in" / "b.csv"
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            other.symlink_to(place / "outside" / "secret.csv")
            other.replace(target)
            other.write_bytes(CONTENT)
            other.replace(target)

    thread = threading.Thread(target=swap)
    thread.start()
    read = 0
    try:
        for _ in range(2_000):
            try:
                locate(f"file://{target}", roots).copy(place / "copy", 1_000)
            except (InvalidDataset, OSError):
                continue
            read += 1
            assert (place / "copy").read_bytes() == CONTENT
    finally:
        done.set()
        thread.join()
    assert read


def test_a_file_that_grows_while_it_is_read_is_cut_off_at_the_limit(place: Path) -> None:
    named = Named("file", str(place / "data" / "in" / "a.csv"))
    with pytest.raises(TooLarge):
        named.copy(place / "copy", len(CONTENT) - 1)


def test_a_device_is_no_file() -> None:
    with pytest.raises(OSError, match="something else"):
        open_resolved("/dev/zero")


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[ArtifactWriter]:
    found = ArtifactWriter(str(tmp_path / "artifacts"))
    yield found
    found.close()


def test_a_trainer_can_have_nothing_published_but_what_it_was_asked_to_write(
    writer: ArtifactWriter, place: Path
) -> None:
    own = Path(writer.scratch("a" * 32))
    secret = place / "outside" / "secret.csv"
    link = own.with_name("linked.keras")
    link.symlink_to(secret)
    own.write_bytes(b"model")

    def kept(path: str | Path, *files: KeptFile) -> KeptModel:
        return KeptModel(member=0, path=str(path), files=list(files))

    def file(path: str | Path, name: str) -> KeptFile:
        return KeptFile(name=name, path=str(path), media_type="text/plain", size_bytes=1)

    hostile = [
        kept(secret), kept(link), kept(f"{own.parent}/../{own.parent.name}/{own.name}"), kept(own.parent),
        kept("/dev/zero"), kept(own, file(secret, "recipe.py")), kept(own, file(own, "../../../up")),
        kept(own, file(own, "/etc/up")), kept(own, file(own, "a/b")), kept(own, file(own, "..")),
        kept(own, file(own, "a\0b")), kept(own, file(own, "")), kept(own, file(own, "a\nb")),
    ]  # fmt: skip
    for model in hostile:
        with pytest.raises(OSError, match="asked to write"):
            writer.publish("st_1", 0, 1, "b" * 32, model)
        with pytest.raises(OSError, match="asked to write"):
            writer.publish_snapshot("st_1/key", KeptSnapshot(member=0, path=str(secret), epochs=1))
    assert secret.read_bytes() == b"secret"
    assert not list(place.rglob("artifacts/*/**/*"))
    (pointer,) = writer.publish("st_1", 0, 1, "b" * 32, kept(own))
    assert (place / "artifacts" / pointer.path).read_bytes() == b"model"


def test_chains_of_file_systems_are_never_parsed_from_a_users_text(place: Path) -> None:
    """What fsspec would make of a chain is real: the refusals above are what keeps users from it."""
    archive = place / "data" / "a.zip"
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("a.csv", CONTENT)
    with fsspec.open(f"zip://a.csv::file://{archive}") as chained:
        assert chained.read() == CONTENT
    encoded = f"file://{place}/data/zip%3A%2F%2Fa.csv%3A%3Afile%3A%2F%2F{archive}"
    with pytest.raises(InvalidDataset):
        locate(encoded, [f"file://{place}/data"])
