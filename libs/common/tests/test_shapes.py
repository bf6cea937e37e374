"""Values against JSON Schemas, as strictly as the worker checks them."""

from __future__ import annotations

import pytest

from carillon.shapes import faults_of


@pytest.mark.parametrize("value", [3.0, True, "3", None])
def test_what_is_no_integer_for_the_worker_is_none_here(value):
    assert len(faults_of({"n": value}, {"type": "object", "properties": {"n": {"type": "integer"}}})) == 1


def test_an_integer_is_taken():
    assert faults_of({"n": 3}, {"type": "object", "properties": {"n": {"type": "integer"}}}) == []
