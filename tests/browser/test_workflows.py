"""Who looks at a workflow sees its graph move; who has the key decides what it asks."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect
from tests.browser.looking import card, confirm

from carillon import Retry, Service, Tasks, Workflow
from carillon.errors import PermanentError, TransientError
from carillon.platform import Platform
from carillon.testing import eventually, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("tower"), pytest.mark.long(seconds=90)]

CONTRAST = (Path(__file__).parent / "contrast.js").read_text()
ONCE = Retry(attempts=1)

tasks = Tasks("tower")


class Ringers:
    """What the steps wait at, and what fails."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.can_hush = False


@tasks.task(retry=ONCE)
async def strike(bell: str, *, ringers: Ringers) -> str:
    """Strike a bell once the ringers are ready.

    Safe to run twice: it only waits.
    """
    await ringers.ready.wait()
    if bell == "cracked":
        raise PermanentError(f"the bell {bell} gives no sound")
    return bell


@tasks.task(retry=ONCE)
async def hush(bell: str, *, ringers: Ringers) -> None:
    """Take a strike back, if that can be done.

    Safe to run twice: it only returns.
    """
    if not ringers.can_hush:
        raise TransientError(f"nothing hushes the bell {bell}: its clapper does not move any more")


@tasks.task(retry=ONCE)
async def write_down(rung: int) -> int:
    """Write down how many rang.

    Safe to run twice: it only returns.
    """
    return rung


@tasks.workflow(default=True)
async def toll(bell: str, *, flow: Workflow) -> int:
    """One step after the other."""
    await flow.step(strike, bell)
    await flow.sleep(timedelta(milliseconds=10))
    return await flow.step(write_down, 1)


@tasks.workflow()
async def chime(bells: list[str], *, flow: Workflow) -> int:
    """Many at once."""
    batch = await flow.map(strike, bells, need=0)
    return await flow.step(write_down, len(batch.successful))


@tasks.workflow()
async def ask(question: str, *, flow: Workflow) -> bool:
    """Ask a person between two steps."""
    await flow.step(write_down, 0)
    decision = await flow.approval(question, timeout=timedelta(days=2))
    await flow.step(write_down, 1)
    return decision.approved


@tasks.workflow()
async def peal(bell: str, *, flow: Workflow) -> None:
    """Strike two bells or none."""
    async with flow.saga() as saga:
        await saga.step(strike, bell, undo=hush)
        await saga.step(strike, "cracked", undo=hush)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tower(settings, gateway) -> AsyncIterator[Ringers]:
    """The domain at work, its ringers ready."""
    ringers = Ringers()
    ringers.ready.set()

    @asynccontextmanager
    async def resources(_: Platform) -> AsyncIterator[Mapping[type, object]]:
        yield {Ringers: ringers}

    service = Service(name="tower", settings=settings, tasks=tasks, resources=resources, concurrency=20)
    async with Platform(settings, name="test") as platform, running(service, platform):

        async def known() -> bool:
            return "tower.peal" in {task["name"] for task in (await gateway.get("/api/v1/tasks"))["tasks"]}

        await eventually(known)
        # A gateway that answers for the first time takes long, and a page that waited long asks again much later.
        run = await gateway.submit("tower.toll", args={"bell": "great"})
        await gateway.ended(run)
        for path in (f"runs/{run}/history", f"workflows/{run}/graph", "approvals"):
            await gateway.get(f"/api/v1/{path}")
        yield ringers


@pytest.fixture
def ringers(tower):
    """The ringers, not ready until the test says so."""
    tower.ready.clear()
    tower.can_hush = False
    yield tower
    tower.ready.set()


def boxes(page):
    return card(page, "Steps").locator(".step")


async def asked(gateway, question="Shall we?"):
    """A workflow that asks somebody, and waits."""
    run = await gateway.submit("tower.ask", args={"question": question})

    async def asks() -> bool:
        return (await gateway.get(f"/api/v1/runs/{run}"))["status"] == "pending" and any(
            row["workflow_id"] == run for row in (await gateway.get("/api/v1/approvals?limit=200"))["approvals"]
        )

    await eventually(asks)
    return run


async def broken(gateway):
    """A saga that cannot be undone, and asks for a repair."""
    run = await gateway.submit("tower.peal", args={"bell": "great"})

    async def asks() -> bool:
        return any(row["workflow_id"] == run for row in (await gateway.get("/api/v1/approvals?limit=200"))["approvals"])

    await eventually(asks)
    return run


async def test_a_chain_is_drawn_and_moves_before_the_eyes_of_who_looks(visit, gateway, ringers):
    run = await gateway.submit("tower.toll", args={"bell": "great"})
    page = await visit.open(f"/runs/{run}")
    await page.evaluate("window.loadedOnce = true")
    await expect(boxes(page)).to_have_count(1)
    await expect(boxes(page).first.locator(".state")).to_have_text("running")
    await expect(card(page, "Why it waits")).to_contain_text("It waits for 1 run, and holds no slot")

    ringers.ready.set()

    await expect(boxes(page)).to_have_count(3)
    await expect(boxes(page).locator(".state")).to_have_text(["completed"] * 3)
    await expect(boxes(page).nth(2)).to_contain_text("3 · run after step 2")
    await expect(card(page, "Steps").locator("header")).to_contain_text("3 completed")
    # A line and its tip for each of two edges.
    await expect(card(page, "Steps").locator(".edges path")).to_have_count(4)
    assert await page.evaluate("window.loadedOnce")
    await boxes(page).first.get_by_role("link", name="tower.strike").click()
    await expect(card(page, "Chain")).to_contain_text("step 1 of")
    await card(page, "Chain").get_by_role("link", name="this workflow").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("tower.toll")


async def test_a_fan_out_is_one_box_that_leads_to_what_failed(visit, gateway):
    run = await gateway.submit("tower.chime", args={"bells": ["cracked", *map(str, range(199))]})
    await gateway.ended(run)

    page = await visit.open(f"/runs/{run}")

    await expect(boxes(page)).to_have_count(2)
    await expect(boxes(page).first).to_contain_text("× 200")
    await expect(boxes(page).first).to_contain_text("199 completed · 1 failed")
    await expect(card(page, "Chain")).not_to_contain_text("submitted 200")
    await boxes(page).first.get_by_role("link", name="see the one that failed").click()
    await expect(card(page, "Found runs").get_by_role("row").filter(has_text="tower.strike")).to_have_count(1)


async def test_an_approval_is_given_on_the_page_of_the_workflow(operator, gateway):
    run = await asked(gateway)
    page = await operator.open(f"/runs/{run}")

    await boxes(page).get_by_role("button", name="Approve").click()
    await confirm(page, "Approve", "everybody is here")

    await expect(boxes(page)).to_have_count(3)
    await expect(boxes(page).nth(1).locator(".state")).to_have_text("approved")
    await expect(boxes(page).nth(1)).to_contain_text("by local: everybody is here")
    (entry,) = (await gateway.get(f"/api/v1/audit?action=workflow.approved&subject={run}"))["entries"]
    assert entry["reason"] == "everybody is here"


async def test_a_refusal_takes_a_key_and_keeps_the_place_of_who_uses_the_keyboard(visit, gateway):
    run = await asked(gateway)
    page = await visit.open(f"/runs/{run}")
    refuse = boxes(page).get_by_role("button", name="Refuse")

    await refuse.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("textbox", name="Why")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(refuse).to_be_focused()
    await page.keyboard.press("Enter")
    await confirm(page, "Refuse")
    await page.get_by_role("dialog", name="Key").get_by_label("Key").fill(gateway.key)
    await page.keyboard.press("Enter")

    await expect(boxes(page).nth(1).locator(".state")).to_have_text("refused")
    await gateway.ended(run)
    assert (await gateway.get(f"/api/v1/runs/{run}"))["result"] is False


async def test_a_repair_is_tried_again_when_its_cause_is_mended(operator, gateway, tower):
    tower.can_hush = False
    run = await broken(gateway)
    page = await operator.open(f"/runs/{run}")
    await expect(boxes(page).last).to_contain_text("which takes back tower.strike, failed. Try again?")
    tower.can_hush = True

    await boxes(page).last.get_by_role("button", name="Try again").click()
    await confirm(page, "Try again", "the clapper is oiled")

    await expect(boxes(page).filter(has_text="the clapper is oiled").locator(".state")).to_have_text("tried again")
    await gateway.ended(run)
    await expect(page.locator(".title .state")).to_have_text("failed")


async def test_approvals_lie_on_a_page_of_their_own_until_somebody_decides(operator, gateway, hostile):
    for row in (await gateway.get("/api/v1/approvals?limit=200"))["approvals"]:
        await gateway.post(f"/api/v1/workflows/{row['workflow_id']}/steps/{row['seq']}/decision", {"approve": False})
    page = await operator.open("/approvals")
    await expect(card(page, "Open")).to_contain_text("Nobody has to decide anything.")

    run = await asked(gateway, f"Shall we {hostile}?")

    row = card(page, "Open").get_by_role("listitem").filter(has_text=hostile)
    await expect(row).to_contain_text("tower.ask · step 2")
    await row.get_by_role("button", name="Approve").click()
    await confirm(page, "Approve", "why not")
    await expect(card(page, "Open")).to_contain_text("Nobody has to decide anything.")
    await expect(page.get_by_role("alert")).to_have_text("It was decided, and the workflow goes on.")
    await gateway.ended(run)
    assert (await gateway.get(f"/api/v1/runs/{run}"))["result"] is True
    assert await page.evaluate("window.ran") is None


async def test_who_decides_too_late_is_told(operator, gateway):
    operator.may_be_refused = True
    run = await asked(gateway)
    page = await operator.open(f"/runs/{run}")
    await boxes(page).get_by_role("button", name="Approve").click()
    await gateway.post(f"/api/v1/workflows/{run}/steps/2/decision", {"approve": False})

    await confirm(page, "Approve")

    await expect(page.get_by_role("alert").last).to_contain_text("was decided by local already")
    await page.keyboard.press("Escape")


async def test_a_workflow_that_ended_is_forked_from_a_step(operator, gateway):
    operator.may_be_refused = True
    run = await asked(gateway)
    await gateway.post(f"/api/v1/workflows/{run}/steps/2/decision", {"approve": False})
    await gateway.ended(run)
    page = await operator.open(f"/runs/{run}")

    await page.get_by_role("button", name="Fork").click()
    await page.get_by_label("From step").fill("4")
    await confirm(page, "Fork")
    await expect(page.get_by_label("From step")).not_to_have_attribute("aria-invalid", "true")
    await expect(page.get_by_role("heading", level=1)).to_have_text("tower.ask")
    await expect(page).not_to_have_url(re.compile(run))

    await expect(boxes(page).nth(1).locator(".state")).to_have_text("refused")
    await expect(card(page, "Chain")).to_contain_text("repeats")


@pytest_asyncio.fixture(loop_scope="module")
async def address(request, gateway, tower):
    """The address of a page with something to decide."""
    tower.can_hush = False
    run = await (broken if request.param == "saga" else asked)(gateway)
    return "/approvals" if request.param == "approvals" else f"/runs/{run}"


ADDRESSES = ("approvals", "approval", "saga")


@pytest.mark.parametrize("address", ADDRESSES, indirect=True)
async def test_a_page_fits_a_telephone(tab, address):
    visit = await tab(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)

    page = await visit.open(address)
    await expect(page.locator(".acts").get_by_role("button").first).to_be_visible()

    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    assert await page.evaluate("innerWidth") == 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", ADDRESSES, indirect=True)
async def test_every_word_stands_out_from_what_is_behind_it(tab, address, scheme):
    visit = await tab(color_scheme=scheme, reduced_motion="reduce")

    page = await visit.open(address)
    await expect(page.locator(".acts").get_by_role("button").first).to_be_visible()
    seen = await page.evaluate(CONTRAST)

    assert seen["words"] > 20
    assert (seen["page"] < 0.1) == (scheme == "dark")
    assert seen["faint"] == []
