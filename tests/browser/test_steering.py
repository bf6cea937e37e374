"""Who looks at a run sees how far it is and why it waits; who has the key steers it, and says why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect
from tests.browser.looking import card, confirm

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("bells"),
    pytest.mark.long(seconds=60),
]

CONTRAST = (Path(__file__).parent / "contrast.js").read_text()


def state(page):
    return page.locator(".title .state")


async def reason_of(gateway, action, subject):
    found = (await gateway.get(f"/api/v1/audit?action={action}&subject={subject}"))["entries"]
    return [entry["reason"] for entry in found]


@pytest_asyncio.fixture(loop_scope="module")
async def released(gateway):
    """Whatever a test pauses goes on after it."""
    yield
    await gateway.post("/api/v1/domains/bells/resume", {})


@pytest_asyncio.fixture(loop_scope="module")
async def winding(gateway, bells):
    """A run that is wound as far as the test says."""
    run = await gateway.submit("bells.wind", args={"clock": "tower"})
    yield run
    await bells.turns.put(1)
    await gateway.ended(run)


async def test_progress_moves_before_the_eyes_of_who_looks(visit, winding, bells):
    page = await visit.open(f"/runs/{winding}")
    await page.evaluate("window.loadedOnce = true")
    progress = card(page, "Progress")
    await expect(progress).to_contain_text("It has not reported how far it is.")

    await bells.turns.put(0.25)

    await expect(progress.get_by_role("progressbar")).to_have_attribute("value", "25")
    await expect(progress).to_contain_text("25 %")
    await expect(progress).to_contain_text("windingthe spring of tower")
    await expect(progress.locator("#partial")).to_contain_text('"turned": 0.25')

    await bells.turns.put(0.5)

    await expect(progress.get_by_role("progressbar")).to_have_attribute("value", "50")
    await expect(progress).to_contain_text(re.compile("left|nearly done"))
    assert await page.evaluate("window.loadedOnce")


async def test_the_status_page_shows_how_far_runs_are(visit, gateway, winding, bells):
    page = await visit.open()
    running = card(page, "Running now").get_by_role("listitem").filter(has=page.locator(f"a[href='/runs/{winding}']"))

    await bells.turns.put(0.75)

    await expect(running.get_by_role("progressbar")).to_have_attribute("value", "75")
    await expect(running).to_contain_text("winding · the spring of tower")
    # A partial result may be large, so lists leave it out.
    (listed,) = (await gateway.get("/api/v1/runs?task=bells.wind&state=running"))["runs"]
    assert set(listed["progress"]) == {"fraction", "stage", "message", "eta_seconds", "at"}


async def test_what_was_opened_stays_open_while_the_page_moves_on(visit, gateway, winding, bells):
    page = await visit.open(f"/runs/{winding}")
    await bells.turns.put(0.1)
    partial = page.locator("#partial")
    await partial.focus()

    await bells.turns.put(0.2)

    await expect(partial).to_contain_text("0.2")
    await expect(partial).to_be_focused()


async def test_a_run_that_executes_is_cancelled_by_a_click(operator, gateway, gate):
    run = await gateway.submit("bells.ring", args={"bell": "great"})
    page = await operator.open(f"/runs/{run}")
    await expect(state(page)).to_have_text("running")

    await page.get_by_role("button", name="Cancel").click()
    await confirm(page, "Cancel it", "the bell is being cleaned")

    await expect(state(page)).to_have_text("cancelled")
    await expect(page.get_by_role("alert")).to_have_text("1 run that executes was asked to end.")
    await expect(card(page, "Life")).to_contain_text("the bell is being cleaned")
    assert (await gateway.get(f"/api/v1/runs/{run}"))["status"] == "cancelled"
    assert await reason_of(gateway, "run.cancelled", run) == ["the bell is being cleaned"]


async def test_a_waiting_run_is_paused_and_goes_on(operator, gateway):
    run = await gateway.submit("bells.ring", args={"bell": "great"}, delay=3600)
    page = await operator.open(f"/runs/{run}")
    # A page that comes late tells of less.
    await expect(card(page, "Why it waits")).to_contain_text(re.compile("It is due in (1 h|5[0-9] min)"))

    await page.get_by_role("button", name="Pause").click()
    await confirm(page, "Pause", "the ringer is ill")

    await expect(state(page)).to_have_text("paused")
    await expect(card(page, "Why it waits")).to_contain_text("Paused by local")
    await expect(card(page, "Why it waits")).to_contain_text("the ringer is ill")

    await page.get_by_role("button", name="Resume").click()
    await confirm(page, "Resume")

    await expect(state(page)).to_have_text("queued")
    assert (await gateway.get(f"/api/v1/runs/{run}"))["status"] == "queued"


async def test_a_run_that_comes_after_others_says_when_it_goes_on_and_whom_it_calls_back(visit, gateway):
    first = await gateway.submit("bells.ring", args={"bell": "small"}, delay=3600)
    run = await gateway.submit(
        "bells.ring",
        args={"bell": "great"},
        after={"runs": [first], "otherwise": "run", "delay": 90},
        unique={"key": "peal of noon"},
        callback_url="https://example.org/told?token=sesame",
    )

    page = await visit.open(f"/runs/{run}")

    after, facts = card(page, "After"), card(page, "Facts")
    await expect(after).to_contain_text("goes on when all of them completed, 1 min 30 s later")
    await expect(after).to_contain_text("else it goes on when all of them ended")
    await expect(after.get_by_role("link", name="bells.ring")).to_have_attribute("href", f"/runs/{first}")
    await expect(facts).to_contain_text("Calls backhttps://example.org")
    assert "sesame" not in await page.content()
    await facts.get_by_role("link", name="peal of noon").click()
    await expect(page.get_by_role("link", name="bells.ring")).to_have_count(1)


async def test_a_run_that_executes_says_when_it_was_last_heard_of(visit, winding):
    page = await visit.open(f"/runs/{winding}")

    await expect(card(page, "Facts")).to_contain_text(re.compile(r"Last beat(now|\d+ s ago)"))
    await expect(card(page, "Facts")).to_contain_text(re.compile(r"Worker heard(now|\d+ s ago)"))
    await expect(card(page, "Progress")).to_contain_text("It has not reported how far it is.")


async def test_a_run_says_which_limit_it_waits_for(visit, gateway, gate):
    runs = [await gateway.submit("bells.toll", args={"bell": f"{number}"}) for number in range(2)]
    page = await visit.open(f"/runs/{runs[1]}")
    await expect(card(page, "Why it waits")).to_contain_text("It waits for a limit of bells.toll: 1 of 1 runs.")

    gate.open.set()

    await expect(state(page)).to_have_text("completed")


async def test_the_status_page_tells_the_limits_of_a_domain_and_its_tasks(visit):
    page = await visit.open()
    domains = card(page, "Domains")

    await domains.get_by_text("Limits").click()

    await expect(domains).to_contain_text("bells.tollat most 1 at once")


@pytest.mark.usefixtures("released")
async def test_a_paused_domain_says_who_and_why_and_is_resumed(operator, gateway):
    page = await operator.open()
    domains = card(page, "Domains")

    await domains.get_by_role("button", name="Pause bells").click()
    await confirm(page, "Pause", "the tower is shut")

    await expect(domains).to_contain_text("paused")
    await expect(domains).to_contain_text("by local, ")
    await expect(domains).to_contain_text("the tower is shut")
    await expect(domains.get_by_role("button", name="Resume bells")).to_be_focused()
    run = await gateway.submit("bells.ring", args={"bell": "great"})
    await operator.open(f"/runs/{run}")
    await expect(card(page, "Why it waits")).to_contain_text("bells is paused by local")
    await expect(card(page, "Why it waits")).to_contain_text("the tower is shut")

    await operator.open()
    await domains.get_by_role("button", name="Resume bells").click()
    await confirm(page, "Resume")

    await expect(domains.get_by_role("button", name="Pause bells")).to_be_visible()
    await gateway.ended(run)


async def test_a_paused_task_is_shown_below_its_domain(visit, gateway):
    await gateway.post("/api/v1/tasks/bells.tune/pause", {"reason": "the tuner is away"})
    page = await visit.open()

    held = card(page, "Domains").get_by_role("listitem").filter(has_text="bells.tune")
    await expect(held).to_contain_text("the tuner is away")

    await gateway.post("/api/v1/tasks/bells.tune/resume", {})

    await expect(held).to_have_count(0)


async def test_a_failed_run_shows_each_attempt_and_what_it_logged(visit, gateway):
    run = await gateway.submit("bells.tune", args={"bell": "cracked", "hertz": 0})
    await gateway.ended(run)

    page = await visit.open(f"/runs/{run}")
    attempts = card(page, "Attempts")
    await expect(attempts).to_contain_text("attempt 1 failed")
    await expect(attempts).to_contain_text("process ")
    await attempts.get_by_text("Traceback", exact=True).click()
    await attempts.get_by_text("Log", exact=True).click()

    await expect(attempts.locator("#attempt-1-trace-text")).to_contain_text("PermanentError")
    await expect(attempts.locator("#attempt-1-log-text")).to_contain_text("tuning cracked")


async def test_arguments_that_do_not_fit_are_marked_where_they_stand(operator, gateway):
    operator.may_be_refused = True
    run = await gateway.submit("bells.tune", args={"bell": "small", "hertz": 0})
    page = await operator.open(f"/runs/{run}")
    await page.get_by_role("button", name="Run again").click()
    dialog = page.get_by_role("dialog", name="Run bells.tune again")
    hertz, octave = dialog.get_by_label("hertz"), dialog.get_by_label("octave")

    await hertz.fill("many")
    await confirm(page, "Run again")
    await expect(dialog.locator("#argument-hertz-fault")).to_contain_text("is no JSON")
    await expect(hertz).to_be_focused()

    await hertz.fill("440")
    await octave.fill("1.5")
    await confirm(page, "Run again")
    await expect(dialog.locator("#argument-octave-fault")).to_have_text("must be integer")
    await expect(octave).to_be_focused()
    await expect(dialog.locator("#argument-hertz-fault")).to_be_hidden()
    assert (await gateway.get(f"/api/v1/runs/{run}"))["replays"] == []

    await octave.fill("")
    await confirm(page, "Run again", "it has a tone now")

    await expect(page).not_to_have_url(re.compile(run))
    await expect(state(page)).to_have_text("completed")
    await expect(card(page, "Arguments")).to_contain_text('"hertz": 440')
    await expect(card(page, "Chain")).to_contain_text("repeats")
    assert await reason_of(gateway, "run.replayed", run) == ["it has a tone now"]


async def test_a_settled_failure_is_called_settled(operator, gateway):
    run = await gateway.submit("bells.crack", args={"bell": "old"})
    page = await operator.open(f"/runs/{run}")

    await page.get_by_role("button", name="Settle").click()
    await confirm(page, "Settle", "it was melted down")

    await expect(page.locator(".title")).to_contain_text("settled")
    await expect(page.get_by_role("button", name="Settle")).to_have_count(0)
    await expect(card(page, "Life")).to_contain_text("it was melted down")


async def test_a_wrong_key_is_said_and_nothing_is_done(visit, gateway):
    visit.may_be_refused = True
    run = await gateway.submit("bells.ring", args={"bell": "great"}, delay=3600)
    page = await visit.open(f"/runs/{run}")

    await page.get_by_role("button", name="Cancel").click()
    await confirm(page, "Cancel it")
    key = page.get_by_role("dialog", name="Key")
    await key.get_by_label("Key").fill("carillon_wrong")
    await key.get_by_role("button", name="Use this key").click()
    await expect(key).to_contain_text("That key is not known here.")
    await key.get_by_role("button", name="Not now").click()

    await expect(page.get_by_role("dialog")).to_contain_text("Without a key nothing was changed.")
    assert (await gateway.get(f"/api/v1/runs/{run}"))["status"] == "queued"


async def test_why_something_cannot_be_done_is_said_in_its_window(operator, gateway):
    operator.may_be_refused = True
    run = await gateway.submit("bells.ring", args={"bell": "great"}, delay=3600)
    page = await operator.open(f"/runs/{run}")
    await page.get_by_role("button", name="Pause").click()

    await gateway.post(f"/api/v1/runs/{run}/cancel", {})
    await confirm(page, "Pause")

    await expect(page.get_by_role("dialog")).to_contain_text("has ended cancelled; only one that waits can be paused")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_window_is_legible_and_whole_on_a_telephone(tab, gateway, scheme):
    run = await gateway.submit("bells.tune", args={"bell": "small", "hertz": 0})
    await gateway.ended(run)
    visit = await tab(
        viewport={"width": 390, "height": 600}, is_mobile=True, color_scheme=scheme, reduced_motion="reduce"
    )
    page = await visit.open(f"/runs/{run}")

    await page.get_by_role("button", name="Run again").click()
    await page.get_by_label("octave").fill("four")
    await confirm(page, "Run again")

    await expect(page.locator("#argument-octave-fault")).to_contain_text("is no JSON")
    await expect(page.get_by_role("dialog").get_by_role("button", name="Run again")).to_be_in_viewport()
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    assert (await page.evaluate(CONTRAST))["faint"] == []
