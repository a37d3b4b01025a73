"""What is understood of a file: types of columns, tasks, classes, and what becomes of odd cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from app.data.assembly import read_dataset
from app.data.limits import DataLimits
from app.data.normal import Normal, pack_texts, read, unpack_texts, write
from app.data.reading import Reading
from app.domain.datasets import Dataset
from app.errors import InvalidDataset


@pytest.fixture
def understood(tmp_path: Path) -> Any:
    def read_text(text: str, **said: Any) -> Normal:
        path = tmp_path / "t.csv"
        path.write_text(text, encoding="utf-8")
        reading = Reading(format="csv", **({"target": "y"} | said))
        return read_dataset(path, reading, DataLimits(), name="t", description="", origin="upload")

    return read_text


def column_of(values: list[str], name: str = "x") -> str:
    return "\n".join([f"{name},y", *(f"{value},{i % 2}" for i, value in enumerate(values))])


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        ([str(i * 0.5) for i in range(30)], "x", "number"),
        ([str(i) for i in range(30)], "age", "number"),
        ([str(i) for i in range(30)], "customer_id", "id"),
        ([str(i % 3) for i in range(30)], "customer_id", "number"),
        (["", *(str(i) for i in range(29))], "row_id", "number"),
        (["1e3", "-2.5", "+4", " 7 "] * 5, "x", "number"),
        (["NA", "nan", "null", "5"] * 5, "x", "number"),
        (["true", "False"] * 10, "x", "boolean"),
        (["yes", "no"] * 10, "x", "category"),
        (["1,5".replace(",", "."), "x"] * 10, "x", "category"),
        ([f"v{i % 7}" for i in range(60)], "x", "category"),
        ([f"k{i:03d}" for i in range(60)], "x", "id"),
        ([f"some words that nobody counted {i}" for i in range(60)], "x", "text"),
        (["2024-01-02", "2024-01-03T10:00:00Z"] * 10, "x", "time"),
        (["", ""] * 10, "x", "number"),
    ],
)
def test_a_column_is_taken_for_what_it_looks_like(understood: Any, values: list[str], name: str, expected: str) -> None:
    text = column_of(values, name).splitlines()
    # A number beside it, so that there is always something to learn from.
    wider = "\n".join([f"{line},{'z' if i == 0 else i * 1.5}" for i, line in enumerate(text)])
    found = {c.name: c.type for c in understood(wider).dataset.columns}
    assert found[name] == expected


@pytest.mark.parametrize(
    ("targets", "task", "names"),
    [
        (["b", "a"], "classification", ("a", "b")),
        (["10", "9", "2"], "classification", ("2", "9", "10")),
        (["1.0", "0.0"], "classification", ("0", "1")),
        (["true", "false"], "classification", ("false", "true")),
        (["0.5", "1.5"], "regression", ()),
        ([str(i) for i in range(30)], "regression", ()),
    ],
)
def test_the_task_follows_from_the_target(
    understood: Any, targets: list[str], task: str, names: tuple[str, ...]
) -> None:
    lines = [f"{i * 0.5},{targets[i % len(targets)]}" for i in range(60)]
    normal = understood("\n".join(["x,y", *lines]))
    assert (normal.dataset.task, normal.dataset.class_names) == (task, names)
    if names:
        numbered = {float(t) if t[0].isdigit() else t for t in targets}
        assert len(numbered) == len(names)
        first = names.index(str(int(float(targets[0]))) if targets[0][0].isdigit() else targets[0])
        assert normal.arrays["y"][0] == first


def test_rows_keep_their_order_and_quotes_their_commas(understood: Any) -> None:
    text = 'x;note;y\n1;"a;b\nc";p\n2;"say ""so""";q\n3;"a;b\nc";p\n4;"say ""so""";q\n'
    normal = understood(text)
    (note,) = (c for c in normal.dataset.columns if c.name == "note")
    assert note.values == ("a;b\nc", 'say "so"')
    assert normal.arrays["codes"][:, 0].tolist() == [0, 1, 0, 1]
    assert normal.arrays["numbers"][:, 0].tolist() == [1, 2, 3, 4]
    assert normal.arrays["y"].tolist() == [0, 1, 0, 1]


def test_a_byte_order_mark_is_no_part_of_a_name(understood: Any) -> None:
    normal = understood("\ufeffx,y\n1,a\n2,b\n3,a\n4,b\n")
    assert [c.name for c in normal.dataset.columns] == ["x", "y"]


def test_many_blocks_of_a_csv_make_one_column(understood: Any) -> None:
    """Values that first appear in a later block, and codes that run on from block to block."""
    words = [f"early{i % 3}" if i < 150_000 else f"late{i % 3}" for i in range(200_000)]
    normal = understood("\n".join(["word,number,y", *(f"{w},{i},{i % 2}" for i, w in enumerate(words))]))
    (column,) = (c for c in normal.dataset.columns if c.name == "word")
    assert [column.values[code] for code in normal.arrays["codes"][:, 0].tolist()] == words
    assert normal.arrays["numbers"][-1, 0] == 199_999


def test_what_is_written_is_read_again_and_its_hash_does_not_depend_on_its_name(
    understood: Any, tmp_path: Path
) -> None:
    normal = understood("x,c,y\n1,a,p\n,b,q\n3,,p\n4,a,q\n")
    digests = set()
    for name in ("one", "two"):
        named = Normal(Dataset(**{**_fields(normal.dataset), "name": name, "id": f"ds_{name}"}), normal.arrays)
        digests.add(write(named, tmp_path / f"{name}.npz"))
    assert len(digests) == 1
    again = read(tmp_path / "one.npz")
    assert again.dataset.columns == normal.dataset.columns
    for key, values in normal.arrays.items():
        np.testing.assert_array_equal(again.arrays[key], values)


def _fields(dataset: Dataset) -> dict[str, Any]:
    return {name: getattr(dataset, name) for name in Dataset.__dataclass_fields__}


def test_texts_are_packed_without_loss() -> None:
    texts = ["", "plain", "żółw 🐢", "line\nbreak", ""]
    assert unpack_texts(pack_texts(texts)).tolist() == texts


def test_a_refusal_names_the_row(understood: Any) -> None:
    with pytest.raises(InvalidDataset, match="the first in row 3"):
        understood("x,y\n1,a\n2,b\n3,\n4,a\n")
    with pytest.raises(InvalidDataset, match="Row #3"):
        understood("x,y\n1,a\n2,b,c\n")


@pytest.mark.parametrize("value", ["a\0", "\0a", "a\0b", " \0"])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_category_with_a_zero_byte_is_refused_unless_it_is_left_out(tmp_path: Path, form: str, value: str) -> None:
    rows = 9_000  # a CSV file is judged by its first 64 KiB before: the byte comes later
    columns = {"x": [0.5 + i for i in range(rows)], "where": ["a", "b"] * (rows // 2), "y": ["p", "q"] * (rows // 2)}
    columns["where"][-1] = value
    source = tmp_path / f"t.{form}"
    if form == "csv":
        lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
        source.write_text("\n".join(lines), encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pa.table(columns), source)

    def understood_as(**said: Any) -> Normal:
        reading = Reading(format=form, target="y", **said)
        return read_dataset(source, reading, DataLimits(), name="t", description="", origin="upload")

    with pytest.raises(InvalidDataset) as refused:
        understood_as()
    (error,) = refused.value.errors
    assert error.loc == ("file", "where")
    assert "zero byte" in error.msg
    assert understood_as(drop=["where"]).dataset.shape == (1,)
    texts = understood_as(drop=["x"], columns={"where": "text"})
    assert unpack_texts(texts.arrays)[-1] == (value if form == "parquet" else value.strip(" "))
