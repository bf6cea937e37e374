"""The quick profile of the fault matrix, whole: every scenario as it should be, every negative control noticed."""

from __future__ import annotations

import json

import pytest

from chaos.report import RESULTS

# On a crowded machine workers are so slow to start that whoever runs beside a death runs beside three.
pytestmark = pytest.mark.last

#: The profile means to be done in six minutes. A machine that others use too takes longer, and is no reason to fail.
LIMIT_SECONDS = 1_200


@pytest.mark.rabbitmq
@pytest.mark.timeout(LIMIT_SECONDS + 60)
def test_nothing_is_lost_whatever_breaks(chaos):
    before = set(RESULTS.glob("*.json"))
    run = chaos("--limit", str(LIMIT_SECONDS))
    said, _ = run.communicate(timeout=LIMIT_SECONDS + 30)
    (written,) = set(RESULTS.glob("*.json")) - before
    rows = json.loads(written.read_text())["rows"]

    assert run.returncode == 0, said
    assert {row["verdict"] for row in rows} == {"pass", "noticed"}
    assert len({row["scenario"] for row in rows if row["verdict"] == "pass"}) == 16
