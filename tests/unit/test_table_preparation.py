"""Tables as a network takes them: what NumPy prepares is what the exported model's layers give."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from app.data.assembly import read_dataset
from app.data.limits import DataLimits
from app.data.normal import write
from app.data.reading import Reading
from app.domain.study import DatasetSpec
from worker.trainer.trainable import Refused
from worker.training.data import DatasetInfo, Split, load_split, model_entry, model_input
from worker.training.data.preparation import targets_of
from worker.training.data.tables import Table, fit_scale

pytestmark = pytest.mark.tensorflow

MIXED = (
    "age,city,ok,w/x,y",
    lambda i: (
        f"{i % 70 if i % 9 else ''},{('Rome', 'Oslo', 'Lima', '')[i % 4]},{('true', 'false')[i % 2]},"
        f"{i * 1.5},{('no', 'yes')[(i // 3) % 2]}"
    ),
)
NUMBERS = "a,b,ok,y", lambda i: f"{i % 70 if i % 9 else ''},{i * 3},{('true', 'false')[i % 2]},{i * 0.37}"
PLAIN = "a,b,y", lambda i: f"{i % 70},{i * 3},{('x', 'y')[i % 2]}"
WORDS = "c,d,y", lambda i: f"{('a', 'b', '[unknown]')[i % 3]},{('u', 'v')[i % 2]},{('p', 'q')[i % 2]}"


def split_of(tmp_path: Path, table: Any, normalization: str = "standard", **spec: Any) -> Split:
    header, row = table
    source, kept = tmp_path / "t.csv", tmp_path / "t.npz"
    source.write_text("\n".join([header, *(row(i) for i in range(200))]))
    reading = Reading(format="csv", target="y")
    write(read_dataset(source, reading, DataLimits(), name="t", description="", origin="upload"), kept)
    chosen = DatasetSpec(name="t", id="ds_t", **({"test_fraction": 0.1} | spec))
    return load_split(chosen, "vector", {"normalization": normalization}, str(kept))


@pytest.mark.parametrize("normalization", ["standard", "minmax", "none"])
@pytest.mark.parametrize("table", [MIXED, NUMBERS, PLAIN, WORDS], ids=["mixed", "numbers", "plain", "words"])
def test_a_models_layers_give_what_it_is_trained_on(tmp_path: Path, table: Any, normalization: str) -> None:
    split = split_of(tmp_path, table, normalization)
    model = keras.Model(*model_entry(split.preparation, split.raw_shape))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    given = loaded(model_input(split.test.x)).numpy()
    np.testing.assert_allclose(given, split.preparation.prepared(split.test.x), rtol=1e-5, atol=1e-5)
    assert given.shape[1:] == split.shape
    assert np.isfinite(split.train.x).all()


def test_numbers_are_normalised_by_the_training_part(tmp_path: Path) -> None:
    standard = split_of(tmp_path, PLAIN).train.x
    np.testing.assert_allclose((standard.mean(0), standard.std(0)), ([0, 0], [1, 1]), atol=1e-5)
    (tmp_path / "m").mkdir()
    minmax = split_of(tmp_path / "m", PLAIN, "minmax").train.x
    np.testing.assert_allclose((minmax.min(0), minmax.max(0)), ([0, 0], [1, 1]), atol=1e-6)


def test_a_missing_number_is_the_mean_and_marked(tmp_path: Path) -> None:
    split = split_of(tmp_path, NUMBERS)
    raw = np.array([[np.nan, 3.0, 1.0], [5.0, 3.0, np.nan]], np.float32)
    prepared = split.preparation.prepared(raw)
    assert prepared.shape == (2, 4)
    assert prepared[0, 0] == pytest.approx(0.0, abs=1e-5)
    assert prepared[:, 3].tolist() == [1.0, 0.0]  # `ok` never misses in the data, so that it has no mark
    assert 0.4 < prepared[1, 2] < 0.6


def test_an_unknown_value_is_all_zeros_and_an_empty_cell_a_value(tmp_path: Path) -> None:
    split = split_of(tmp_path, MIXED)
    table = split.preparation
    assert isinstance(table, Table)
    assert table.vocabularies == (("", "Lima", "Oslo", "Rome"),)
    rows = np.zeros(3, split.test.x.dtype)
    rows["city"] = ["Oslo", "", "Lim"]
    assert table.prepared(rows)[:, -5:].tolist() == [[0, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_a_vocabulary_is_the_training_parts_alone(tmp_path: Path) -> None:
    rare = "c,x,y", lambda i: f"{'rare' if i == 77 else 'often'},{i},{('p', 'q')[i % 2]}"
    found = set()
    for seed in range(6):
        (tmp_path / str(seed)).mkdir()
        split = split_of(tmp_path / str(seed), rare, split_seed=seed, validation_fraction=0.5)
        assert isinstance(split.preparation, Table)
        (vocabulary,) = split.preparation.vocabularies
        marks = split.train.x[:, 1:].sum(0)
        assert ("rare" in vocabulary) == (len(marks) == 3 and marks[2] == 1)
        found.add(vocabulary)
    assert found == {("often",), ("often", "rare")}


def test_an_upload_without_its_file_is_refused(tmp_path: Path) -> None:
    spec = DatasetSpec(name="t", id="ds_t")
    with pytest.raises(Refused, match="Received none"):
        load_split(spec, "vector", {})
    (tmp_path / "other.npz").write_bytes(b"other")
    with pytest.raises(Refused, match="Expected the file of the upload"):
        load_split(spec, "vector", {}, str(tmp_path / "other.npz"))


def part_of(tmp_path: Path, row: Any, normalization: str, target: str = "y") -> Split:
    """A split whose rows are `row(i, held out)`: a first reading tells which rows will be held out."""
    fields = {"validation_fraction": 0.2, "test_fraction": 0.1}
    header = f"a,b,c,{target}"
    (tmp_path / "first").mkdir()
    first = split_of(tmp_path / "first", (header, lambda i: f"{i},0,0,{('p', 'q')[i % 2]}"), "none", **fields)
    trained_on = {int(i) for i in first.train.x[:, 0]}
    (tmp_path / "second").mkdir()
    return split_of(tmp_path / "second", (header, lambda i: row(i, i not in trained_on)), normalization, **fields)


@pytest.mark.parametrize("normalization", ["standard", "minmax"])
@pytest.mark.parametrize("same", ["5", "0.1", "16777216", "1e-30", ""], ids=["5", "tenth", "large", "tiny", "empty"])
def test_a_number_that_is_constant_in_training_is_left_out_and_told(
    tmp_path: Path, same: str, normalization: str
) -> None:
    split = part_of(tmp_path, lambda i, held: f"{i},{'7e5' if held else same},3,{('p', 'q')[i % 2]}", normalization)
    assert np.abs(split.validation.x[:, 1]).max() == 0
    assert np.abs(split.train.x[:, 1]).max() == 0
    assert np.abs(split.validation.x).max() < 10
    (warning,) = split.warnings
    assert warning.code == "CONSTANT_COLUMN"
    assert warning.message.endswith(": b, c.")
    model = keras.Model(*model_entry(split.preparation, split.raw_shape))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(split.test.x).numpy(), split.prepared_test.x, rtol=1e-5, atol=1e-5)


def test_what_was_rounded_in_two_ways_is_constant_and_small_numbers_are_not() -> None:
    x = np.zeros((6, 4), np.float32)
    x[:, 0] = [0.3, np.nextafter(np.float32(0.3), np.float32(1)), 0.3, 0.3, 0.3, 0.3]
    x[:, 1] = [1e-9, 2e-9, 3e-9, 1e-9, 2e-9, 3e-9]
    x[:, 2] = [1000.0, 1000.001, 1000.0, 1000.0, 1000.0, 1000.0]
    assert fit_scale(x, "standard").varies.tolist() == [False, True, True, False]
    assert fit_scale(x, "minmax").varies.tolist() == [False, True, True, False]
    assert fit_scale(x, "none").varies.all()


def test_a_vectors_constant_features_are_named_by_their_place(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 40)).astype(np.float32)
    x[:, 3:30] = 2.5
    source, kept = tmp_path / "v.npz", tmp_path / "kept.npz"
    np.savez(source, x=x, y=np.arange(60) % 2)
    reading = Reading(format="npz")
    write(read_dataset(source, reading, DataLimits(), name="v", description="", origin="upload"), kept)
    split = load_split(DatasetSpec(name="v", id="ds_v"), "vector", {"normalization": "standard"}, str(kept))
    (warning,) = split.warnings
    assert "feature 3, feature 4, " in warning.message
    assert warning.message.endswith(" and 7 more.")
    assert np.abs(split.train.x[:, 3:30]).max() == 0
    assert load_split(DatasetSpec(name="v", id="ds_v"), "vector", {"normalization": "none"}, str(kept)).warnings == ()


def test_a_target_that_is_constant_in_training_is_scaled_by_all_rows(tmp_path: Path) -> None:
    info = DatasetInfo("t", "regression", "vector", (1,), (), 100)
    targets = np.full(100, 0.1, np.float32)
    targets[80:] = 50.1
    scale = targets_of(info, targets, np.arange(80))
    assert (scale.mean, scale.deviation) == (pytest.approx(0.1), pytest.approx(20.0))
    assert np.abs(scale.prepared(targets)).max() < 3
    assert targets_of(info, targets[:80], np.arange(60)).deviation == 1.0
    assert targets_of(info, targets, np.arange(81)).deviation == pytest.approx(targets[:81].std())
