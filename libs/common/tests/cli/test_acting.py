"""The commands that act, against a whole platform: submit, steer runs and queues, dead letters, many at once."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

pytestmark = pytest.mark.long(seconds=110)

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def said(up, place):
    """Runs a command that succeeds, and gives what it printed."""

    def run(*words: str) -> str:
        done = place.command(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def refused(up, place):
    """Runs a command that is refused in one sentence, and gives the exit code and the sentence."""

    def run(*words: str) -> tuple[int, str]:
        done = place.command(*words)
        assert done.returncode != 0, done.stdout
        assert len(done.stderr.splitlines()) == 1, done.stderr
        return done.returncode, done.stderr

    return run


def waiting(said, *more: str) -> str:
    return said("submit", "backup.list_backups", "--delay", "3600", *more).strip()


def failing(said, place) -> str:
    done = place.command("submit", "backup", '{"source": "nowhere"}', "--wait", "--timeout", "60")
    assert done.returncode == 1, done.stdout
    assert "ended failed" in done.stderr
    return ID.search(done.stderr).group()


def state_of(said, run: str) -> str:
    return json.loads(said("runs", "show", run, "--json"))["state"]


def test_what_is_submitted_with_options_has_them_and_waiting_for_it_prints_its_result(said):
    run = said(
        "submit",
        "backup.list_backups",
        '{"limit": 5}',
        "--priority",
        "urgent",
        "--label",
        "by:hand",
        "--deadline",
        "60",
    ).strip()
    result = said("submit", "backup.list_backups", "--after", run, "--when", "ended", "--wait", "--timeout", "60")

    shown = json.loads(said("runs", "show", run, "--json"))
    assert isinstance(json.loads(result), list)
    assert (shown["priority"], shown["labels"], shown["args"]) == (3, {"by": "hand"}, {"limit": 5})
    assert shown["deadline_at"] > shown["created_at"]


def test_a_taken_key_gives_the_run_that_has_it_or_refuses(said, refused, place):
    first = waiting(said, "--unique", "nightly")

    same = place.command("submit", "backup.list_backups", "--unique", "nightly", "--delay", "3600")
    code, sentence = refused("submit", "backup.list_backups", "--unique", "nightly", "--on-conflict", "reject")

    said("runs", "cancel", first)
    assert (same.returncode, same.stdout.strip()) == (0, first)
    assert "was there already" in same.stderr
    assert code == 1
    assert first in sentence


def test_a_key_that_was_used_for_something_else_is_no_fault_of_typing(said, refused):
    key = ("--idempotency-key", f"once {datetime.now(UTC)}", "--delay", "3600")
    first = said("submit", "backup.list_backups", *key).strip()

    code, sentence = refused("submit", "backup.list_backups", '{"limit": 7}', *key)

    said("runs", "cancel", first)
    assert (code, "use a new key" in sentence) == (1, True)


def test_every_option_of_a_submit_over_http_is_one_in_a_terminal(said, refused):
    soon, later = ((datetime.now(UTC) + timedelta(hours=n)).isoformat() for n in (2, 3))
    once = ("--unique-args", "--until", "started", "--expires-at", soon, "--deadline-at", later)

    first, same = (waiting(said, *once) for _ in range(2))
    then = said("submit", "backup.list_backups", "--after", first, "--after-delay", "60", "--otherwise", "run").strip()

    shown, waits = (json.loads(said("runs", "show", run, "--json")) for run in (first, then))
    said("runs", "cancel", then)
    said("runs", "cancel", first)
    assert first == same
    assert [datetime.fromisoformat(shown[name]).isoformat() for name in ("expires_at", "deadline_at")] == [soon, later]
    assert (waits["after"]["otherwise"], waits["after"]["delay_seconds"]) == ("run", 60)
    assert "is missing: --after." in refused("submit", "backup", "--after-delay", "5")[1]
    assert "is missing: --unique." in refused("submit", "backup", "--until", "started")[1]
    assert "Give --unique or --unique-args" in refused("submit", "backup", "--unique", "k", "--unique-args")[1]


def test_a_run_is_paused_resumed_and_cancelled(said, refused):
    run = waiting(said)

    paused = said("runs", "pause", run, "--reason", "not yet")
    resumed = said("runs", "resume", run)
    cancelled = said("runs", "cancel", run, "--reason", "not needed")

    assert (paused, resumed) == (f"{run} is paused.\n", f"{run} is queued.\n")
    assert cancelled == f"{run} is cancelled; 1 ended with this.\n"
    assert "not needed" in said("audit", "--subject", run)
    assert "has ended cancelled" in refused("runs", "pause", run)[1]


def test_a_failed_run_is_run_again_and_what_is_known_is_settled(said, refused, place):
    run = failing(said, place)

    again = said("runs", "replay", run, "--args", '{"source": "elsewhere"}')
    misfit = refused("runs", "replay", run, "--args", '{"source": 7}')
    settled = said("runs", "settle", run)

    assert ID.findall(again)[0] == run
    assert "/args/source must be string" in misfit[1]
    assert settled == f"{run} is settled.\n"


def test_a_domain_or_task_is_held_and_shown_until_it_is_let_go(said):
    paused = [said("pause", name, "--reason", "moving the disk") for name in ("reports", "backup.list_backups")]
    held = said("holds")
    resumed = [said("resume", name) for name in ("reports", "backup.list_backups", "reports")]

    assert paused[0] == "reports is paused: nothing of it starts.\n"
    assert all(word in held for word in ("reports", "backup.list_backups", "moving the disk"))
    assert resumed[2] == "reports goes on, as before.\n"
    assert said("holds") == "Nothing is paused.\n"


def test_a_key_is_made_and_acts_until_it_is_revoked(said, refused, place):
    key = said("keys", "create", "ada", "--reason", "joins").strip()

    held = place.command("pause", "reports", "--reason", "by ada", CARILLON_KEY=key)
    shown = said("holds")
    again = refused("keys", "create", "ada")
    revoked = [said("keys", "revoke", "ada", "--reason", "left") for _ in range(2)]
    refusal = place.command("resume", "reports", CARILLON_KEY=key)
    said("resume", "reports")

    assert held.returncode == 0, held.stderr
    assert ("ada" in shown, "by ada" in shown) == (True, True)
    assert "take another name" in again[1]
    assert revoked == ["ada opens nothing any more.\n", "ada opens nothing any more, as before.\n"]
    assert (refusal.returncode, "does not know this key" in refusal.stderr) == (78, True)
    listed = next(line for line in said("keys").splitlines() if line.startswith("ada "))
    assert len(re.findall(r"\d{4}-\d\d-\d\d", listed)) == 2
    assert key not in said("audit", "--subject", "ada") + said("keys")


def test_dead_letters_are_shown_run_again_and_discarded_by_the_group(said, refused, place):
    run = failing(said, place)
    (line,) = [line for line in said("dead-letters").splitlines() if "UnknownSourceError" in line]
    fingerprint = line.split()[0]

    shown = said("dead-letters", "show", fingerprint, "--task", "backup.back_up_database")
    again = said("dead-letters", "replay", fingerprint, "--rate", "5", "--reason", "mended")
    failing(said, place)
    discarded = said("dead-letters", "discard", fingerprint, "--reason", "known")

    assert run in shown
    assert '{"source":"nowhere"}' in shown
    assert re.match(r"\d+ run again when .* has completed", again)
    assert re.match(r"\d+ discarded", discarded)
    assert "no such group" in refused("dead-letters", "show", "ffff")[1]
    assert "No message has this id".lower() in refused("dead-letters", "redeliver", NOBODY, "--body", "{}")[1].lower()


def test_many_runs_are_acted_upon_once_somebody_has_agreed(said, place):
    runs = [waiting(said, "--label", "storm:yes") for _ in range(3)]
    wanted = ("bulk", "cancel", "--filter", "label=storm:yes", "--filter", "state=queued")

    asked = place.command(*wanted)
    still = {state_of(said, run) for run in runs}
    done = said(*wanted, "--yes", "--reason", "a storm")

    assert asked.returncode == 1
    assert "say --yes" in asked.stderr
    assert still == {"queued"}
    assert done.startswith("3 runs would be cancelled, among them:")
    assert all(run in done for run in runs)
    assert done.endswith("3 cancelled.\n")
    assert {state_of(said, run) for run in runs} == {"cancelled"}
    assert said(*wanted, "--yes") == "No run fits.\n"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("submit", "backup", "{"), 2, "is no JSON"),
        (("submit", "backup", "[]"), 2, "has to be a JSON object"),
        (("submit", "backup", '{"source": 7}'), 2, "/data/source must be string"),
        (("submit", "nowhere"), 1, "no domain of this name"),
        (("submit", "backup", "--priority", "first"), 2, "/priority must be one of"),
        (("submit", "backup", "--label", "alone"), 2, "A label is a name"),
        (("submit", "backup", "--when", "any"), 2, "--after"),
        (("submit", "backup", "--window", "5"), 2, "--unique"),
        (("submit", "backup", "--after", NOBODY), 2, "nobody knows"),
        (("runs", "cancel", "x"), 2, "no id of a run"),
        (("runs", "pause", NOBODY), 1, "no run has the id"),
        (("runs", "replay", NOBODY, "--args", "x"), 2, "is no JSON"),
        (("dead-letters", "redeliver", "ffff"), 1, "no such group"),
        (("dead-letters", "redeliver", "ffff", "--body", "{}"), 2, "--body mends one message"),
        (("dead-letters", "redeliver", NOBODY), 1, "no message has this id"),
        (("pause", "nowhere"), 1, "no domain and no task"),
        (("resume", "no where"), 1, "no domain and no task"),
        (("bulk", "explode", "--filter", "task=x"), 2, "there are cancel, replay, settle, delete"),
        (("bulk", "cancel", "--filter", "task"), 2, "write NAME=VALUE"),
        (("bulk", "cancel", "--filter", "colour=red"), 2, "colour"),
        (("bulk", "cancel", "--filter", "task=a", "--filter", "task=b"), 2, "may be given once"),
        (("bulk", "cancel", "--filter", "longer=soon"), 2, "a number of seconds"),
    ],
)
def test_what_was_mistyped_is_one_sentence(refused, words, code, told):
    ended, sentence = refused(*words)

    assert (ended, told in sentence) == (code, True), sentence


def test_without_a_platform_the_commands_say_what_is_missing(place, tmp_path):
    nowhere = {"CARILLON_URL": "http://127.0.0.1:1", "CARILLON_KEY": "carillon_x"}
    away = [place.command(*words, **nowhere) for words in (("holds",), ("submit", "backup"), ("dead-letters",))]
    keyless = place.command("holds", CARILLON_HOME=str(tmp_path))

    assert [done.returncode for done in away] == [1, 1, 1]
    assert all("is the platform running" in done.stderr for done in away)
    assert (keyless.returncode, "There is no key in" in keyless.stderr) == (78, True)
