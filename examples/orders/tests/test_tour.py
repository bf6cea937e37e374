"""The tour, as whoever types it sees it."""

from __future__ import annotations

import subprocess
import sys


def test_the_tour_is_ten_lines_and_shows_each_pattern():
    seen = subprocess.run(
        [sys.executable, "-m", "orders.tour"], capture_output=True, text=True, check=False, timeout=60
    )

    assert (seen.returncode, seen.stderr) == (0, "")
    lines = seen.stdout.splitlines()
    assert len(lines) == 10
    told = {line[:20].strip(): line[20:] for line in lines}
    assert told["Saga"].startswith("order_123 is completed: 2 bells in stock, 1 shipped, 9999 cents taken")
    assert "refund_payment, release_inventory; 2 bells in stock, 1 shipped" in told["Saga, rolled back"]
    assert "the breaker orders.carrier is open" in told["Circuit breaker"]
    assert told["... later"].startswith("both runs are completed, and the carrier was asked")
    assert [told[name].split(", ")[:2] for name in ("Fallback", "... degraded", "... and more so")] == [
        ["Ada", "by directory"], ["Ada", "by copy"], ["Ada", "by last good"],
    ]  # fmt: skip
    assert told["Partial success"].startswith("the run is partial: 2 deliveries put away")
    assert told["Idempotency"] == "paid twice with one key: the same result, and 500 cents taken"
    assert told["In the end"].endswith("10499 cents taken; nothing is wrong")
