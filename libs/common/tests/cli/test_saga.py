"""`carillon saga check`: what it shows of a sound saga and of one that forgets, and what it says of mistyped names."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.long(seconds=60)

SHOP = """
from carillon import NEVER, Tasks, Workflow
from carillon.errors import StepFailedError
from carillon.testing.crashes import Scenario

tasks = Tasks("shop")


class World:
    def __init__(self):
        self.holds = set()


@tasks.task(retry=NEVER)
async def charge(order: str, *, world: World) -> None:
    world.holds.add(f"charged {order}")


@tasks.task(retry=NEVER)
async def refund(order: str, *, world: World) -> None:
    world.holds.discard(f"charged {order}")


@tasks.task(retry=NEVER)
async def ship(order: str, *, world: World) -> None:
    world.holds.add(f"shipped {order}")


@tasks.task(retry=NEVER)
async def recall(order: str, *, world: World) -> None:
    world.holds.discard(f"shipped {order}")


@tasks.workflow()
async def sell(order: str, *, flow: Workflow) -> None:
    async with flow.saga() as saga:
        await saga.step(charge, order, undo=refund)
        await saga.step(ship, order, undo=recall)


@tasks.workflow()
async def sell_badly(order: str, *, flow: Workflow) -> None:
    async with flow.saga() as saga:
        await saga.step(charge, order)
        await saga.step(ship, order, undo=recall)


def scenario_of(workflow):
    world = World()
    start = lambda: workflow.kiq("17")
    return Scenario(tasks=[tasks], start=start, effects=lambda: sorted(world.holds), resources={World: world})


def sound():
    return scenario_of(sell)


def forgetful():
    return scenario_of(sell_badly)


def no_saga():
    world = World()
    return Scenario(tasks=[tasks], start=lambda: sell.kiq("17", "18"), effects=list, resources={World: world})


def broken():
    raise KeyError("no stock")


def number():
    return 17


async def asynchronous():
    return sound()
"""


@pytest.fixture
def check(place, tmp_path):
    (tmp_path / "sells.py").write_text(SHOP)
    (tmp_path / "sick.py").write_text("import sells_that_are_not_there")

    def check(*words: str):
        return place.command("saga", "check", *words, PYTHONPATH=str(tmp_path))

    return check


def test_a_sound_saga_shows_each_step_and_way_and_ends_with_0(check) -> None:
    shown = check("sells:sound")

    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert lines[0].split() == ["step", "how", "it", "fails", "ends", "leaves", "moments", "violations"]
    assert [line.split()[0] for line in lines[1:12]] == ["(none)", *["shop.charge"] * 5, *["shop.ship"] * 5]
    assert lines[1].split()[-4:-2] == ["completed", "all"]
    assert lines[11].split()[-4:-2] == ["cancelled", "nothing"]
    assert {line.split()[-1] for line in lines[1:12]} == {"0"}
    assert lines[-1].endswith("trials, and each left all of it or nothing.")


def test_a_saga_that_forgets_ends_with_1_and_shows_when_and_what_was_left(check) -> None:
    shown = check("sells:forgetful")

    assert (shown.returncode, shown.stderr) == (1, "")
    assert 'All is ["charged 17","shipped 17"]\nNothing is []\n' in shown.stdout
    faults = shown.stdout.splitlines()[-21:]
    assert faults[0].startswith("shop.charge") or faults[0].startswith("shop.ship")
    assert all(line.endswith('["charged 17"]') for line in faults[:-1])
    assert faults[-1].endswith("more; --json has them all.")


def test_as_json_each_violation_says_when_the_worker_died_and_what_was_left(check) -> None:
    shown = check("sells:forgetful", "--json")

    told = json.loads(shown.stdout)
    found = [violation for case in told["cases"] for violation in case["violations"]]
    assert shown.returncode == 1
    assert len(found) == told["violations"] > 20
    assert {str(one["effects"]) for one in found} == {"['charged 17']"}
    assert {one["died"] for one in found} >= {None, "shop.ship has been taken"}


def test_as_json_it_is_one_object(check) -> None:
    shown = check("sells:sound", "--json")

    told = json.loads(shown.stdout)
    assert shown.returncode == 0
    assert (told["all"], told["nothing"], told["violations"]) == (["charged 17", "shipped 17"], [], 0)
    assert all(not case["violations"] for case in told["cases"])
    assert told["trials"] == sum(1 + case["moments"] for case in told["cases"])
    assert told["cases"][0] | {"moments": 0} == {
        "step": None, "way": "not at all", "state": "completed", "left": "all", "moments": 0, "violations": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sells", "'sells' is no scenario; write MODULE:FUNCTION, such as orders.scenarios:payment."),
        ("sells:", "'sells:' is no scenario"),
        ("no where:sound", "'no where:sound' is no scenario"),
        ("nowhere:sound", "The module nowhere cannot be imported here (ModuleNotFoundError: No module named"),
        ("sick:sound", "The module sick cannot be imported here (ModuleNotFoundError: No module named 'sells_that"),
        ("sells:nothing", "sells has no plain function nothing"),
        ("sells:asynchronous", "sells has no plain function asynchronous"),
        ("sells:number", "sells:number makes a int, and has to make a carillon.testing.crashes.Scenario."),
        ("sells:broken", "sells:broken makes no scenario (KeyError: 'no stock')"),
    ],
)
def test_what_is_mistyped_is_said_in_one_sentence(check, name: str, said: str) -> None:
    refused = check(name)

    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr.startswith(f"carillon: {said}")
    assert len(refused.stderr.splitlines()) == 1


def test_what_does_not_go_well_by_itself_cannot_be_checked(check) -> None:
    refused = check("sells:no_saga")

    assert refused.returncode == 2
    told = "(InvalidArgumentsError: shop.sell takes 1 arguments, 2 were given)"
    assert refused.stderr == f"carillon: sells:no_saga cannot be checked {told}.\n"
