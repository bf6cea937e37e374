"""What PostgreSQL's jsonb cannot keep is recognised, and nothing else."""

from __future__ import annotations

import math

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from carillon.jsonb import holds_nul, loses_numbers


@given(st.text(alphabet=st.sampled_from(["\\", "u", "0", "\x00", "a", '"'])))
@example("\\u0000")
@example("\\\\u0000")
@example("\x00")
def test_nul_is_found_exactly_where_a_string_holds_it(text):
    assert holds_nul(orjson.dumps({"text": text})) == ("\x00" in text)


class Point(BaseModel):
    """A place."""

    x: float


@pytest.mark.parametrize(
    ("value", "lost"),
    [
        (None, False), ({"a": None, "b": [None, 1.5, "NaN"]}, False), (Point(x=1), False), ({"a": object}, False),
        (math.nan, True), ({"a": [1, {"b": -math.inf}]}, True), (Point(x=math.inf), True), ((None, math.nan), True),
    ],
)  # fmt: skip
def test_a_float_that_json_has_not_is_noticed_and_a_null_is_none(value, lost):
    encoded = orjson.dumps(value, default=lambda other: to_jsonable_python(other, serialize_unknown=True))

    assert loses_numbers(value, encoded) is lost
