"""Identifiers: the layout of UUIDv7, its order in time, and that derived ids never collide by spelling."""

from __future__ import annotations

import time
from uuid import RFC_4122

from hypothesis import given
from hypothesis import strategies as st

from carillon.ids import derived_id, keyed_id, new_id


def milliseconds(identifier) -> int:
    return identifier.int >> 80


def test_a_new_id_has_the_bits_of_version_seven():
    before = time.time_ns() // 1_000_000
    made = [new_id() for _ in range(1000)]
    after = time.time_ns() // 1_000_000

    assert {(identifier.version, identifier.variant) for identifier in made} == {(7, RFC_4122)}
    assert all(before <= milliseconds(identifier) <= after for identifier in made)
    assert len(set(made)) == 1000


def test_ids_made_in_different_milliseconds_sort_by_time():
    made = [new_id()]
    while len(made) < 20:
        if milliseconds(latest := new_id()) > milliseconds(made[-1]):
            made.append(latest)

    assert sorted(made, key=str) == made
    assert sorted(made) == made


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_only_the_same_cause_has_the_same_id(one, other):
    assert (derived_id(*one) == derived_id(*other)) == (one == other)


def test_parts_that_spell_the_same_together_are_different_causes():
    spellings = [("ab", "c"), ("a", "bc"), ("abc",), ("", "abc"), ("1:a", "b"), ("1", ":ab"), ("a1:b",), ("a", "b")]

    ids = {derived_id(*parts) for parts in spellings}

    assert len(ids) == len(spellings)
    assert {(identifier.version, identifier.variant) for identifier in ids} == {(5, RFC_4122)}


def test_a_derived_id_never_changes_between_releases():
    assert str(derived_id("event", "/customers", "1")) == "af04cbef-077d-5828-ba9e-dbc1abf2b466"


def test_the_runs_of_a_key_are_the_same_in_every_release_from_python_and_over_http():
    assert keyed_id("shop.add", "k") == derived_id("key", "shop.add", "k")
    assert keyed_id("shop.add", "k", actor="anna") == derived_id("key", "anna", "shop.add", "k")
    assert keyed_id("shop.add", "k", actor="anna", place=3) == derived_id("key", "anna", "shop.add", "k", "3")
    assert keyed_id("shop.add", "k", place=0) not in {keyed_id("shop.add", "k"), keyed_id("shop.add", "k", place=1)}
