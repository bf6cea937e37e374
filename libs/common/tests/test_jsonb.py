"""What PostgreSQL's jsonb cannot keep is recognised, and nothing else."""

from __future__ import annotations

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from carillon.jsonb import holds_nul


@given(st.text(alphabet=st.sampled_from(["\\", "u", "0", "\x00", "a", '"'])))
@example("\\u0000")
@example("\\\\u0000")
@example("\x00")
def test_nul_is_found_exactly_where_a_string_holds_it(text):
    assert holds_nul(orjson.dumps({"text": text})) == ("\x00" in text)
