"""The checker against ledgers that were made up: each kind of fault is found, and a clean run passes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from chaos.checker import Verdict, check
from chaos.evidence import Answer, Depth, Effect, End, Evidence, Mark, RunRow, Submit

RING, CHIME, SING, CRACK, LATE = "ring", "chime", "sing", "crack", "late"


def clean() -> Evidence:
    """Four runs that were accepted, and one that answered; one failed as it was to, one expired."""
    submits = [Submit(ticket, f"bells.{ticket}", ticket, 1.0) for ticket in (RING, CHIME, CRACK, LATE)]
    return Evidence(
        submits=submits,
        answers=[Answer(submit.ticket, "accepted", submit.run, 1.1) for submit in submits],
        marks=[
            *(Mark("start", run, run, 1, 7, 2.0) for run in (RING, CHIME, CRACK)),
            *(Mark("end", run, run, 1, 7, 2.1) for run in (RING, CHIME)),
            Mark("raise", CRACK, CRACK, 1, 7, 2.1),
            Mark("start", SING, "", 1, 8, 2.2),
            Mark("end", SING, "", 1, 8, 2.3),
        ],
        effects=[Effect(RING), Effect(CHIME), Effect(SING, answers=CHIME)],
        tries=[(RING, 1), (CHIME, 1), (SING, 1)],
        runs=[
            RunRow(RING, "completed", "bells.ring", 1),
            RunRow(CHIME, "completed", "bells.chime", 1),
            RunRow(SING, "completed", "choir.sing", 1),
            RunRow(CRACK, "failed", "bells.crack", 1),
            RunRow(LATE, "cancelled", "bells.ring", 1),
        ],
        ends=[
            End(RING, "completed", 2.1),
            End(CHIME, "completed", 2.1),
            End(SING, "completed", 2.3),
            End(CRACK, "failed", 2.1),
            End(LATE, "cancelled", 3.0),
        ],
        queues={"chaos.bells.tasks": Depth(0, 0)},
        faults={"workers killed": 3},
        recovery_seconds=2.0,
    )


def without(evidence: Evidence, run: str) -> Evidence:
    return replace(evidence, runs=[row for row in evidence.runs if row.id != run])


def in_state(evidence: Evidence, run: str, state: str) -> Evidence:
    rows = [replace(row, state=state) if row.id == run else row for row in evidence.runs]
    return replace(evidence, runs=rows)


def answered(evidence: Evidence, ticket: str, status: str) -> Evidence:
    answers = [replace(a, status=status) if a.ticket == ticket else a for a in evidence.answers]
    return replace(evidence, answers=answers)


def found(evidence: Evidence) -> dict[str, int]:
    return {name: len(ids) for name, ids in check(evidence).violations.items()}


def test_a_clean_run_passes_with_its_counts():
    verdict = check(clean())

    assert verdict == Verdict(
        accepted=4,
        indeterminate=0,
        completed=2,
        dead=1,
        cancelled=1,
        recovered=0,
        dup_run=0,
        faults={"workers killed": 3},
        recovery_seconds=2.0,
    )
    assert verdict.passed


def test_an_accepted_run_without_a_row_is_lost():
    evidence = without(clean(), RING)

    assert found(evidence) == {"LOST": 1}


def test_a_run_that_is_said_to_be_completed_and_has_done_nothing_is_lost():
    evidence = replace(clean(), effects=[Effect(CHIME), Effect(SING, answers=CHIME)])

    assert found(evidence) == {"LOST": 1}


def test_an_indeterminate_run_without_a_row_is_not_lost():
    evidence = without(answered(clean(), RING, "unknown"), RING)

    verdict = check(evidence)

    assert (verdict.passed, verdict.accepted, verdict.indeterminate, verdict.recovered) == (True, 3, 1, 0)


def test_an_indeterminate_run_that_ended_is_counted_as_recovered():
    evidence = answered(clean(), RING, "unknown")

    verdict = check(evidence)

    assert (verdict.passed, verdict.accepted, verdict.indeterminate, verdict.recovered) == (True, 3, 1, 1)


@pytest.mark.parametrize("state", ["queued", "running", "retrying"])
def test_a_run_that_has_not_ended_is_stuck(state):
    evidence = in_state(clean(), RING, state)

    assert found(evidence) == {"STUCK": 1}


def test_a_run_that_nobody_asked_for_is_unexpected():
    evidence = clean()

    evidence.runs = [*evidence.runs, RunRow("stranger", "completed", "bells.ring", 1)]

    assert found(evidence) == {"UNEXPECTED": 1}


def test_a_refused_submit_that_became_a_run_is_unexpected():
    evidence = answered(clean(), RING, "refused")

    assert found(evidence) == {"UNEXPECTED": 1}


def test_an_indeterminate_submit_whose_id_nobody_was_told_excuses_one_stranger_and_no_more():
    evidence = clean()
    evidence.submits = [*evidence.submits, Submit("key", "bells.ring", None, 1.0)]
    one = replace(evidence, runs=[*evidence.runs, RunRow("a", "cancelled", "bells.ring", 1)])
    two = replace(one, runs=[*one.runs, RunRow("b", "cancelled", "bells.ring", 1)])

    assert (found(one), found(two)) == ({}, {"UNEXPECTED": 1})


def test_one_key_that_became_two_runs_is_found():
    evidence = clean()

    evidence.answers = [*evidence.answers, Answer(RING, "accepted", CHIME, 1.2)]

    assert "TWO_RUNS" in found(evidence)


def test_a_run_that_was_started_again_is_reported_and_allowed():
    evidence = clean()
    evidence.marks = [*evidence.marks, Mark("start", RING, RING, 2, 9, 4.0)]
    evidence.tries = [*evidence.tries, (RING, 2)]

    verdict = check(evidence)

    assert (verdict.passed, verdict.dup_run) == (True, 1)


def test_one_attempt_that_did_its_effect_twice_is_found():
    evidence = clean()

    evidence.tries = [*evidence.tries, (RING, 1)]

    assert found(evidence) == {"DUP_EFFECT": 1}


def test_an_event_that_two_runs_answered_is_found():
    evidence = clean()

    evidence.effects = [*evidence.effects, Effect("sing again", answers=CHIME)]

    assert found(evidence) == {"DUP_EFFECT": 1}


def test_an_event_that_nobody_answered_is_found():
    evidence = clean()

    evidence.effects = [Effect(RING), Effect(CHIME), Effect(SING)]

    assert found(evidence) == {"UNANSWERED": 1}


@pytest.mark.parametrize("state", ["completed", "failed"])
def test_a_run_that_ended_twice_is_found(state):
    evidence = clean()

    evidence.ends = [*evidence.ends, End(RING, state, 9.0)]

    assert found(evidence) == {"DOUBLE_TERMINAL": 1}


def test_a_row_that_moved_is_no_second_end():
    evidence = clean()

    evidence.ends = [*evidence.ends, evidence.ends[0]]

    assert found(evidence) == {}


def test_a_run_that_failed_although_its_code_did_not_raise_is_found():
    evidence = in_state(clean(), RING, "failed")

    assert found(evidence) == {"INNOCENT_DEAD": 1}


def test_a_scenario_may_allow_a_task_to_fail():
    evidence = replace(in_state(clean(), RING, "failed"), may_fail=frozenset({"bells.ring"}))

    assert found(evidence) == {}


@pytest.mark.parametrize("depth", [Depth(1, 0), Depth(0, 1)])
def test_what_is_left_in_a_queue_is_found(depth):
    evidence = replace(clean(), queues={"chaos.bells.tasks": depth})

    assert found(evidence) == {"LEFT_IN_QUEUE": 1}


@pytest.mark.parametrize("faults", [{}, {"workers killed": 0}, {"workers killed": 3, "broker stopped": 0}])
def test_a_run_in_which_a_fault_did_not_happen_fails(faults):
    evidence = replace(clean(), faults=faults)

    assert found(evidence) == {"NO_FAULT": 1}


@pytest.mark.parametrize("seconds", [30.1, math.inf])
def test_a_rate_that_does_not_come_back_in_time_is_found(seconds):
    evidence = replace(clean(), recovery_seconds=seconds)

    assert found(evidence) == {"SLOW": 1}


def test_what_the_scenario_itself_found_broken_fails_it():
    evidence = replace(clean(), broken=["a submit took 9 s"])

    verdict = check(evidence)

    assert (verdict.passed, verdict.complaints()) == (False, ["BROKEN 1: a submit took 9 s"])
