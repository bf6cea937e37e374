"""The graph of a workflow: which steps are a box, in which layer, and after which others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from carillon.ledger.graph import MOST_BOXES, MOST_SINGLE, REST, Box, graph
from carillon.ledger.steps import SeenStep, seen_steps

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
Asked = tuple[str, Sequence[int]]


def steps(*asked: Asked, kind: str = "task", state: str = "completed") -> list[SeenStep]:
    """Steps of these names, each with the ends that were told since the step before."""
    absent = ("run_id", "event_id", "due_at", "match", "attempt", "started_at", "ended_at", "run_attempt", "run_parks",
              "run_at", "error_type", "error_message", "result_bytes", "result")  # fmt: skip
    known = {"kind": kind, "at": NOON, "state": state}
    return seen_steps(
        [
            dict.fromkeys(absent) | known | {"seq": seq, "name": name, "saw": saw}
            for seq, (name, saw) in enumerate(asked, 1)
        ]
    )


def told(boxes: list[Box]) -> list[tuple[int, str, int, int, list[int]]]:
    return [(box.first, box.name, sum(box.counts.values()), box.layer, list(box.after)) for box in boxes]


def test_a_chain_is_a_box_for_each_step():
    assert told(graph(steps(("mix", []), ("bake", [1]), ("sell", [2])))) == [
        (1, "mix", 1, 0, []), (2, "bake", 1, 1, [1]), (3, "sell", 1, 2, [2]),
    ]  # fmt: skip


def test_a_few_steps_side_by_side_lead_to_what_comes_after_all_of_them():
    assert told(graph(steps(("mix", []), ("mix", []), ("warm", []), ("bake", [2, 1, 3])))) == [
        (1, "mix", 1, 0, []), (2, "mix", 1, 0, []), (3, "warm", 1, 0, []), (4, "bake", 1, 1, [1, 2, 3]),
    ]  # fmt: skip


def test_many_of_one_name_are_a_box_between_what_is_before_and_after():
    many = MOST_SINGLE + 1
    fan = [("mix", [1]), *[("mix", [])] * (many - 1)]

    boxes = graph(steps(("ask", []), *fan, ("bake", list(range(2, many + 2)))))

    assert told(boxes) == [(1, "ask", 1, 0, []), (2, "mix", many, 1, [1]), (many + 2, "bake", 1, 2, [2])]
    assert (boxes[1].last, boxes[1].step) == (many + 1, None)


def test_a_fan_out_of_which_few_go_at_once_is_still_one_box():
    two_at_once = [("mix", []), ("mix", []), *[("mix", [seq]) for seq in range(1, 9)]]

    assert told(graph(steps(*two_at_once, ("bake", [9, 10])))) == [(1, "mix", 10, 0, []), (11, "bake", 1, 1, [1])]


def test_what_somebody_decides_is_never_folded():
    assert len(graph(steps(*[("Shall we?", [])] * 30, kind="approval"))) == 30


def test_a_cancellation_is_no_step():
    assert told(graph(steps(("mix", []), ("throw away", [0, 1]))))[1] == (2, "throw away", 1, 1, [1])


def test_a_graph_has_a_bound_and_the_middle_of_a_longer_one_is_a_box():
    chain = [(f"step {seq}", [seq] if seq else []) for seq in range(1000)]

    boxes = graph(steps(*chain))

    assert len(boxes) == MOST_BOXES
    (rest,) = (box for box in boxes if box.kind == REST)
    assert sum(sum(box.counts.values()) for box in boxes) == 1000
    assert (rest.first, rest.last, list(rest.after)) == (101, 901, [100])
    assert list(boxes[101].after) == [101]


def test_ten_thousand_steps_and_their_fan_in_cost_no_more_than_their_number():
    fan = [("mix", [])] * 4999
    boxes = graph(steps(*fan, ("bake", list(range(1, 5000))), *[("bake", [])] * 4999))

    assert told(boxes) == [(1, "mix", 4999, 0, []), (5000, "bake", 5000, 1, [1])]
