"""Keys as text, and the secret that they are hashed under."""

from __future__ import annotations

import stat
import string
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cli.serve import environment
from app.domain.keys import digest, mark, new_key, read_key, shown_prefix
from app.errors import Unready
from app.settings import Settings
from app.store.pepper import FILE, Pepper

CHARACTERS = string.ascii_letters + string.digits


def test_a_key_is_read_as_it_was_made() -> None:
    made = new_key()
    assert read_key(made.text) == made
    assert made.key_id.startswith("key_")
    assert made.text.startswith(shown_prefix(made.key_id))
    assert len({new_key().text for _ in range(1000)}) == 1000


def test_another_secret_for_a_key_keeps_its_id() -> None:
    made = new_key()
    other = new_key(made.key_id)
    assert other.key_id == made.key_id
    assert other.text != made.text


@given(st.data())
def test_a_key_with_any_one_character_changed_is_none(data: st.DataObject) -> None:
    text = new_key().text
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from([c for c in CHARACTERS if c != text[place]]))
    assert read_key(text[:place] + other + text[place + 1 :]) is None


@given(st.data())
def test_a_key_with_two_neighbours_swapped_is_none(data: st.DataObject) -> None:
    text = new_key().text
    place = data.draw(st.integers(0, len(text) - 2))
    swapped = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    assert swapped == text or read_key(swapped) is None


@given(st.text())
def test_other_texts_are_no_keys(text: str) -> None:
    assert read_key(text) is None
    assert read_key(f"fettle_{text}") is None


def test_what_is_around_a_key_makes_it_none() -> None:
    text = new_key().text
    assert all(read_key(wrong) is None for wrong in (f"{text}\n", f" {text}", text + "A", text[:-1], text.upper()))


def test_hashes_depend_on_the_secret_and_marks_do_not_tell_it() -> None:
    text = new_key().text
    assert digest(b"a" * 32, text) == digest(b"a" * 32, text) != digest(b"b" * 32, text)
    assert mark(b"a" * 32) != mark(b"b" * 32)
    assert mark(b"a" * 32) not in digest(b"a" * 32, text)


def test_the_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    pepper = Pepper(tmp_path / "data")
    assert pepper.find() is None
    with ThreadPoolExecutor(8) as threads:
        made = set(threads.map(lambda _: pepper.ensure(), range(32)))
    assert made == {pepper.find()}
    assert stat.S_IMODE((tmp_path / "data" / FILE).stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == [FILE]


def test_a_secret_that_is_given_needs_no_file(tmp_path: Path) -> None:
    pepper = Pepper(tmp_path, "x" * 32)
    assert pepper.ensure() == pepper.find() == b"x" * 32
    assert list(tmp_path.iterdir()) == []


def test_a_secret_that_was_cut_short_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("short")
    with pytest.raises(Unready, match="shorter"):
        Pepper(tmp_path).find()


def test_settings_and_workers_do_not_tell_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FETTLE_KEY_SECRET", "s" * 40)
    monkeypatch.setenv("FETTLE_API_KEY", "fettle_x")
    settings = Settings()
    assert "s" * 40 not in repr(settings) + str(settings.model_dump())
    child = environment(settings)
    assert "s" * 40 not in str(child)
    assert not {"FETTLE_KEY_SECRET", "FETTLE_API_KEY"} & set(child)
    monkeypatch.setenv("FETTLE_KEY_SECRET", "")
    assert Settings().key_secret is None
