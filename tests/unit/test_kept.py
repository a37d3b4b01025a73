"""What is kept in memory is bounded by bytes."""

from __future__ import annotations

from app.kept import ENTRY_BYTES, Kept


def test_the_least_recently_used_makes_room() -> None:
    kept: Kept[str] = Kept(3 * (100 + ENTRY_BYTES))
    for key in "abc":
        kept.put(key, key.upper(), 100)
    assert kept.get("a") == "A"
    kept.put("d", "D", 100)
    assert [kept.get(key) for key in "abcd"] == ["A", None, "C", "D"]
    assert (len(kept), kept.bytes) == (3, kept.limit)


def test_a_value_that_is_larger_than_all_is_not_kept_and_pushes_nothing_out() -> None:
    kept: Kept[str] = Kept(1_000)
    kept.put("a", "A", 100)
    kept.put("b", "B", 1_000)
    assert (kept.get("a"), kept.get("b"), kept.bytes) == ("A", None, 100 + ENTRY_BYTES)
    kept.put("a", "AA", 2_000)
    assert (kept.get("a"), kept.bytes) == (None, 0)


def test_a_value_that_grew_stays_and_others_go() -> None:
    kept: Kept[str] = Kept(1_000)
    kept.put("a", "A", 100)
    kept.put("b", "B", 100)
    kept.resize("a", 900)
    kept.resize("gone", 900)
    assert (kept.get("a"), kept.get("b"), kept.bytes) == ("A", None, 900 + ENTRY_BYTES)
    kept.resize("a", 5_000)
    assert kept.get("a") == "A"
    kept.drop("a")
    assert (len(kept), kept.bytes) == (0, 0)
