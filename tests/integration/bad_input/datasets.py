"""Data sets that can't be read, named, registered or deleted."""

from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from tests.integration.bad_input import DefinitionCase, RequestCase
from tests.integration.bad_input.studies import mlp
from tests.support.data_files import csv_table, form, images, npy, npz, text_table, zip_of

CHURN = csv_table()
DEFINITIONS: list[DefinitionCase] = [
    ("a data set's id that is none", mlp(dataset={"name": "digits", "id": "ds_0"}), ["dataset", "id"]),
    ("an id that is a number", mlp(dataset={"name": "digits", "id": 5}), ["dataset", "id"]),
    ("a path for a name", mlp(dataset={"name": "../../etc/passwd"}), ["dataset", "name"]),
    ("texts for an mlp", mlp(dataset={"name": "imdb"}), ["dataset", "name"]),
    (
        "an unknown normalization",
        mlp(hyperparameters={"normalization": "robust"}),
        ["hyperparameters", "normalization"],
    ),
]


def upload(
    what: str,
    file: bytes,
    filename: str,
    loc: list[Any] | None,
    status: int = 422,
    code: str = "INVALID_DATASET",
    **said: Any,
) -> RequestCase:
    """A form with a file: what is wrong with it, and where."""
    fields: list[tuple[str, Any]] = []
    for field, value in ({"name": "new"} | said).items():
        fields += [(field, each) for each in value] if isinstance(value, list) else [(field, value)]
    body, headers = form(file, filename, fields)
    return (what, "POST", "/v1/datasets", body, headers, status, code, loc)


def table(text: str | bytes, what: str, loc: list[Any], **said: Any) -> RequestCase:
    return upload(what, text if isinstance(text, bytes) else text.encode(), "t.csv", loc, **({"target": "y"} | said))


def archive(file: bytes, what: str, loc: list[Any], **said: Any) -> RequestCase:
    return upload(what, file, "a.npz", loc, **said)


def reference(what: str, loc: list[Any], **said: Any) -> RequestCase:
    body = {"name": "new", "uri": "file:///data/a.csv", "target": "y"} | said
    return (what, "POST", "/v1/datasets", body, {}, 422, "INVALID_DATASET", loc)


def parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pa.parquet.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def rows(*lines: str, times: int = 4) -> str:
    return "\n".join([lines[0], *lines[1:] * times]) + "\n"


Y = np.arange(40) % 2
ZEROS = bytes(4_000_000)
WITHOUT_FILE = form(b"", "a.csv", [])[1]

TABLES: list[RequestCase] = [
    table("", "an empty file", ["file"]),
    table("\n\n", "a file of empty lines", ["file"]),
    table("x,y\n", "a header alone", ["file"]),
    table("x,y\n1,2\n1,2,3\n", "a row that is too long", ["file"]),
    table("x,y\n1,2\n1\n", "a row that is too short", ["file"]),
    table('x,y\n"1,2\n3,4\n', "a quote that never ends", ["file"]),
    table("x,x,y\n1,2,3\n", "a column twice", ["file", "x"]),
    table("x,,y\n1,2,3\n", "a column without a name", ["file"]),
    table(b"x,y\n\xff\xfe,1\n", "bytes that are not UTF-8", ["file"]),
    table(rows("x,y", "1,a", "2,b").encode("utf-16"), "UTF-16", ["file"]),
    table(b"x,y\n1,\x00\n", "a NUL", ["file"]),
    table(rows("x,y", "1,a", "2,b"), "no target", ["target"], target="z"),
    table(rows("x,y", "1,a", "2,b"), "an empty target", ["target"], target=""),
    table("x,y\n1,a\n2,\n3,a\n4,b\n", "a target that is missing", ["target"]),
    table("x,y\n1,1.5\n2,nan\n3,2.5\n", "a target that is NaN", ["target"]),
    table("x,y\n1,1.5\n2,1e999\n3,2.5\n", "a target that is infinite", ["file", "y"]),
    table("x,y\n1e999,a\n2,b\n", "an infinite number", ["file", "x"]),
    table(rows("x,y", "1e300,a", "2,b"), "a number beyond 32 bits", ["file", "x"]),
    table(rows("x,y", "1,a"), "one class", ["target"]),
    table(rows("x,y", "1,a", "2,b") + "3,c\n", "a class of one row", ["target"]),
    table(
        rows("x,y", *(f"{i},c{i}" for i in range(1200)), times=2), "too many classes", ["target"], task="classification"
    ),
    table(rows("x,y", "1,5.5"), "values that are all the same", ["target"]),
    table(rows("x,y", "1,a", "2,b"), "regression on words", ["target"], task="regression"),
    table(rows("x,y", "1,2024-01-01", "2,2024-01-02"), "times to predict", ["target"]),
    table(rows("y", "a", "b"), "nothing to learn from", ["file"]),
    table(rows("x,y", "1,a", "2,b"), "all columns dropped", ["file"], drop=["x"]),
    table(rows("x,y", "1,a", "2,b"), "an unknown column dropped", ["drop", 0], drop=["z"]),
    table(rows("x,y", "1,a", "2,b"), "the target dropped", ["drop", 0], drop=["y"]),
    table(rows("x,y", "1,a", "2,b"), "a type for no column", ["columns", "z"], columns='{"z": "number"}'),
    table(rows("x,y", "u,a", "v,b"), "words as numbers", ["columns", "x"], columns='{"x": "number"}'),
    table(rows("x,y", "1,a", "2,b"), "an unknown type", ["columns", "x"], columns='{"x": "date"}'),
    table(rows("x,y", "1,a", "2,b"), "types that are no JSON", ["columns"], columns="x=number"),
    table(
        rows("x,y", *(f"v{i},{i % 2}.5" for i in range(1200)), times=2),
        "a category of too many values",
        ["file", "x"],
        columns='{"x": "category"}',
    ),
    table(rows("x,y", "1,a", "2,b"), "images in a table", ["input_kind"], input_kind="image"),
    table(rows("x,y", "1,a", "2,b"), "text in numbers", ["input_kind"], input_kind="text"),
    table(rows("x,y", "1,a", "2,b"), "a delimiter of two", ["delimiter"], delimiter=";;"),
    table(rows("x,y", "1,a", "2,b"), "a quote as delimiter", ["delimiter"], delimiter='"'),
    table(rows("x,y", "1,a", "2,b"), "arrays of a table", ["x"], x="x"),
    upload("a CSV called Parquet", CHURN, "a.parquet", ["file"], target="churned"),
    upload(
        "a delimiter in Parquet", parquet(x=[1, 2], y=[1, 2]), "a.parquet", ["delimiter"], target="y", delimiter=";"
    ),
    upload("lists in Parquet", parquet(x=[[1], [2]], y=[1, 2]), "a.parquet", ["file", "x"], target="y"),
    upload("Parquet without rows", parquet(x=pa.array([], pa.int64())), "a.parquet", ["file"], target="x"),
    upload("half a Parquet file", parquet(x=[1] * 99, y=[1] * 99)[60:], "a.parquet", ["file"], target="y"),
]
ARCHIVES: list[RequestCase] = [
    archive(b"PK\x03\x04" + bytes(50), "half a zip", ["file"]),
    archive(zip_of([]), "an empty zip", ["file"]),
    archive(npz(x=np.array([{}, {}], object), y=np.array([0, 1])), "objects", ["file", "x"]),
    archive(npz(x=np.zeros((2, 2)), y=np.array([None, 1], object)), "objects as targets", ["file", "y"]),
    archive(zip_of([("x.npy", pickle.dumps([1, 2])), ("y.npy", b"")]), "a pickle", ["file", "x"]),
    archive(zip_of([("x.npy", npy("(2,)", "|O", pickle.dumps([1, 2])))]), "a pickle in an array", ["file", "x"]),
    archive(zip_of([("x.npy", ZEROS), ("y.npy", ZEROS)]), "a zip bomb", ["file", "x"]),
    archive(zip_of([("x.npy", npy("(1000000000000, 8)", "<f8", bytes(64)))]), "a shape that lies", ["file", "x"]),
    archive(zip_of([("x.npy", npy("(4, 8)", "<f8", bytes(64)))]), "an array cut short", ["file", "x"]),
    archive(zip_of([("x.npy", npy("(-1, 8)", "<f8", bytes(64)))]), "a negative shape", ["file", "x"]),
    archive(zip_of([("x.npy", npy("(2, " + "9" * 400 + ")", "<f8", b""))]), "a shape of 400 digits", ["file", "x"]),
    archive(zip_of([("x.npy", npy("__import__('os')", "<f8", b""))]), "code in a header", ["file", "x"]),
    archive(zip_of([("x.npy", npy("(2,)", "[('a', '<f8')]", bytes(16)))]), "an unknown dtype", ["file", "x"]),
    archive(npz(x=np.zeros(2, [("a", "f8")]), y=np.arange(2)), "structured arrays", ["file", "x"]),
    archive(npz(x=np.zeros((2, 2), complex), y=np.arange(2)), "complex numbers", ["file", "x"]),
    archive(npz(x=np.zeros((2, 2), "M8[s]"), y=np.arange(2)), "times in an array", ["file", "x"]),
    archive(zip_of([("../x.npy", b""), ("y.npy", b"")]), "a path in a name", ["file"]),
    archive(zip_of([(f"a{i}.npy", b"") for i in range(65)]), "too many arrays", ["file"]),
    archive(zip_of([("x.npy", npy("(2,)", "<f8", bytes(16)))], zipfile.ZIP_LZMA), "another packing", ["file", "x"]),
    archive(npz(a=np.zeros((2, 2)), b=np.arange(2)), "arrays of other names", ["file"]),
    archive(npz(**images()), "an array that isn't there", ["file", "z"], x="z", y="y"),
    archive(npz(x=np.zeros((3, 2)), y=np.arange(2)), "targets too few", ["file", "y"]),
    archive(npz(x=np.zeros((40, 2)), y=np.stack([Y, Y], 1)), "two targets a sample", ["file", "y"]),
    archive(npz(x=np.zeros((40, 2, 2, 2, 2)), y=Y), "samples of four axes", ["file", "x"]),
    archive(npz(x=np.zeros((40, 8, 8, 7)), y=Y), "seven channels", ["file", "x"]),
    archive(npz(x=np.zeros((40, 1, 8, 3)), y=Y), "images of one row", ["file", "x"]),
    archive(npz(x=np.zeros((40, 0)), y=Y), "samples without numbers", ["file", "x"]),
    archive(npz(x=np.zeros((0, 4)), y=np.zeros(0)), "no samples", ["file", "x"]),
    archive(npz(x=np.full((40, 2), np.nan), y=Y), "NaN in an array", ["file", "x"]),
    archive(npz(x=np.ones((40, 2)), y=np.where(Y, np.nan, 1.5)), "NaN as target in an array", ["file", "y"]),
    archive(npz(x=np.ones((40, 2)), y=Y), "recordings without a rate", ["sample_rate"], input_kind="audio"),
    archive(npz(x=np.ones((40, 2)), y=Y), "a rate without recordings", ["sample_rate"], sample_rate=8000),
    archive(npz(x=np.ones((40, 2)), y=Y), "a rate of 0", ["sample_rate"], sample_rate=0),
    archive(npz(x=np.ones((40, 2)), y=Y), "texts of numbers", ["file", "x"], input_kind="text"),
    archive(npz(x=np.ones((40, 2)), y=Y), "a column of an archive", ["target"], target="y"),
    archive(npz(x=np.ones((40, 2)), y=Y), "dropped from an archive", ["drop"], drop=["a"]),
    archive(npz(x=np.array([b"\xff", b"a"] * 4), y=Y[:8]), "text that is not UTF-8", ["file", "x"]),
]
FORMS: list[RequestCase] = [
    upload("no name", CHURN, "a.csv", ["name"], name="", target="churned"),
    upload("a path as name", CHURN, "a.csv", ["name"], name="../a", target="churned"),
    upload("the name of a bundled one", CHURN, "a.csv", None, 409, "NAME_TAKEN", name="digits", target="churned"),
    upload("a name like an id", CHURN, "a.csv", None, 409, "NAME_TAKEN", name=f"ds_{'0' * 20}", target="churned"),
    upload("an unknown ending", CHURN, "a.xlsx", ["format"], target="churned"),
    upload("an unknown format", CHURN, "a.csv", ["format"], target="churned", format="pickle"),
    upload("an unknown field", CHURN, "a.csv", ["foo"], target="churned", foo="1"),
    upload("an unknown task", CHURN, "a.csv", ["task"], target="churned", task="ranking"),
    upload("a field twice", CHURN, "a.csv", None, 400, "BAD_REQUEST", target=["churned", "age"]),
    upload("a file and a URI", CHURN, "a.csv", ["uri"], target="churned", uri="file:///a.csv"),
    upload("NUL in a description", CHURN, "a.csv", ["description"], target="churned", description="a\0b"),
    upload("a long description", CHURN, "a.csv", ["description"], target="churned", description="a" * 2_001),
    upload("text as vectors", text_table(), "a.csv", ["file"], target="label", input_kind="vector"),
    ("a form without a file", "POST", "/v1/datasets", b"--fettle-test-boundary--\r\n", WITHOUT_FILE, 422,
     "INVALID_DATASET", ["name"]),
    ("half a form", "POST", "/v1/datasets", form(CHURN, "a.csv", [("name", "new")])[0][:80], WITHOUT_FILE, 422,
     "INVALID_DATASET", ["name"]),
    ("a form without a boundary", "POST", "/v1/datasets", b"x", {"Content-Type": "multipart/form-data"}, 400,
     "BAD_REQUEST", None),
    ("two files", "POST", "/v1/datasets", form(CHURN, "a.csv", [('file"; filename="b.csv', "x")])[0], WITHOUT_FILE, 400,
     "BAD_REQUEST", None),
    ("a file by itself", "POST", "/v1/datasets", CHURN, {"Content-Type": "text/csv"}, 415, "UNSUPPORTED_MEDIA_TYPE",
     None),
    ("a large JSON", "POST", "/v1/datasets", b" " * 1_000_001, {"Content-Type": "application/json"}, 413,
     "BODY_TOO_LARGE", None),
    ("JSON without a URI", "POST", "/v1/datasets", {"name": "new"}, {}, 422, "INVALID_DATASET", ["uri"]),
    ("JSON that is a list", "POST", "/v1/datasets", [1], {}, 422, "INVALID_DATASET", None),
    ("a query", "POST", "/v1/datasets?name=a", {"uri": "file:///a"}, {}, 422, "INVALID_REQUEST", ["query", "name"]),
    ("an unknown one deleted", "DELETE", "/v1/datasets/none", None, {}, 404, "DATASET_NOT_FOUND", None),
    ("a bundled one deleted", "DELETE", "/v1/datasets/digits", None, {}, 409, "STATE_CONFLICT", None),
    ("a path as id", "GET", "/v1/datasets/..%2F..%2Fetc", None, {}, 404, "NOT_FOUND", None),
    ("a cursor of another list", "GET", "/v1/datasets?cursor=abc", None, {}, 400, "BAD_CURSOR", None),
]  # fmt: skip
REFERENCES: list[RequestCase] = [
    reference("a URI without roots", ["uri"]),
    reference("a name that is none", ["name"], name="a b"),
    reference("a URI that is a number", ["uri"], uri=5),
    reference("an unknown field of a reference", ["foo"], foo=1),
]
REQUESTS: list[RequestCase] = [*TABLES, *ARCHIVES, *FORMS, *REFERENCES]
