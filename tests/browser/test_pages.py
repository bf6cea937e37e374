"""The pages show live what runs, is scheduled and failed, let who has the key steer, and run nothing foreign."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect
from tests.browser.looking import card, confirm

from carillon.testing import eventually

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("bells"),
    pytest.mark.long(seconds=100),
]

PAGES = ("/", "/runs", "/approvals", "/dead-letters", "group", "/statistics", "/audit", "/docs", "/docs/events", "run")
CONTRAST = (Path(__file__).parent / "contrast.js").read_text()
#: The texts of the elements that are wider than the nearest ancestor which is not inline leaves them.
WHOLE = """(elements) => elements.filter((element) => {
    let box = element;
    while (getComputedStyle(box).display === "inline") box = box.parentElement;
    return box.scrollWidth > box.clientWidth;
}).map((element) => element.textContent)"""


@pytest_asyncio.fixture(loop_scope="module")
async def address(request, gateway, markup):
    """The address of a page; `run` stands for that of a run full of markup, `group` for the dead letters like it."""
    if request.param == "group":
        error = (await gateway.get(f"/api/v1/runs/{markup}"))["error"]
        return f"/dead-letters/{error['fingerprint']}?task=bells.crack"
    return f"/runs/{markup}" if request.param == "run" else request.param


@pytest_asyncio.fixture(loop_scope="module")
async def noon(gateway):
    yield "ring-at-noon"
    await gateway.post("/api/v1/tasks/scheduled/ring-at-noon/resume", None)


def link_to(page, run):
    return page.locator(f"a[href='/runs/{run}']")


def state_of(page, run):
    return card(page, "Recent runs").get_by_role("row").filter(has=link_to(page, run)).locator(".state")


async def test_a_run_appears_and_ends_before_the_eyes_of_who_looks(visit, gateway, gate):
    page = await visit.open()
    await page.evaluate("window.loadedOnce = true")

    run = await gateway.submit("bells.ring", args={"bell": "great"})

    await expect(link_to(card(page, "Running now"), run)).to_have_text("bells.ring")
    await expect(state_of(page, run)).to_have_text("running")

    gate.open.set()

    await expect(state_of(page, run)).to_have_text("completed")
    await expect(link_to(card(page, "Running now"), run)).to_have_count(0)
    await expect(card(page, "Events")).to_contain_text("bells.bell_rung.v1")
    assert await page.evaluate("window.loadedOnce")


async def test_a_failed_run_shows_why_and_leads_to_the_whole_story(visit, gateway):
    page = await visit.open()

    run = await gateway.submit("bells.crack", args={"bell": "old"})

    attention = card(page, "Needs attention").get_by_role("listitem").filter(has=link_to(page, run))
    await expect(attention).to_contain_text("the bell old cracked")
    await expect(attention.locator(".state")).to_have_text("failed")
    await expect(state_of(page, run)).to_have_text("failed")

    await link_to(attention, run).click()

    await expect(page.get_by_role("heading", level=1)).to_have_text("bells.crack")
    await expect(card(page, "Error")).to_contain_text("the bell old cracked")
    await expect(card(page, "Arguments")).to_contain_text('"bell": "old"')
    await expect(card(page, "Attempts")).to_contain_text("attempt 1 failed")


async def test_the_page_of_a_run_follows_it_to_its_end(visit, gateway, gate):
    run = await gateway.submit("bells.ring", args={"bell": "great"})
    page = await visit.open(f"/runs/{run}")
    await expect(page.locator(".title .state")).to_have_text("running")

    gate.open.set()

    await expect(page.locator(".title .state")).to_have_text("completed")
    await expect(card(page, "Chain")).to_contain_text("bells.bell_rung.v1")


async def test_who_has_the_key_pauses_and_resumes_a_schedule(visit, gateway, noon):
    page = await visit.open()
    schedule = card(page, "Scheduled").get_by_role("listitem").filter(has_text=noon)
    await expect(schedule).to_contain_text("0 12 * * * Europe/Vienna")

    await schedule.get_by_role("button", name=f"Pause {noon}").click()
    await confirm(page, "Pause", "the clock is cleaned")
    await page.get_by_role("dialog", name="Key").get_by_label("Key").fill(gateway.key)
    await page.get_by_role("button", name="Use this key").click()

    await expect(schedule).to_contain_text("paused")
    await expect(schedule).to_contain_text("by local")
    assert (await gateway.schedules())[noon] is True
    entries = await gateway.get(f"/api/v1/audit?subject={noon}&limit=1")
    assert entries["entries"][0]["reason"] == "the clock is cleaned"

    await schedule.get_by_role("button", name=f"Resume {noon}").click()
    await confirm(page, "Resume")

    await expect(schedule.get_by_role("button")).to_have_text("Pause")
    assert (await gateway.schedules())[noon] is False


@pytest.mark.parametrize("refuse", ["click", "escape"])
async def test_without_a_key_nothing_changes(visit, gateway, noon, refuse):
    page = await visit.open()
    pause = page.get_by_role("button", name=f"Pause {noon}")

    await pause.click()
    await confirm(page, "Pause")
    if refuse == "click":
        await page.get_by_role("button", name="Not now").click()
    else:
        await page.keyboard.press("Escape")
    await expect(page.get_by_role("alert").last).to_have_text("Without a key nothing was changed.")
    await page.keyboard.press("Escape")

    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(pause).to_be_enabled()
    assert (await gateway.schedules())[noon] is False
    assert not any("/pause" in url for url in visit.requests)


async def test_a_wrong_key_is_called_wrong_and_changes_nothing(visit, gateway, noon):
    page = await visit.open()

    await page.get_by_role("button", name=f"Pause {noon}").click()
    await confirm(page, "Pause")
    await page.get_by_label("Key", exact=True).last.fill("carillon_wrong")
    await page.get_by_role("button", name="Use this key").click()

    await expect(page.get_by_role("dialog", name="Key")).to_contain_text("That key is not known here.")
    assert (await gateway.schedules())[noon] is False
    # Chromium itself notes every answer 401.
    assert all(re.search("status of 401", complaint) for complaint in visit.complaints)
    visit.complaints.clear()


async def test_who_steers_by_keyboard_keeps_their_place(visit, gateway, noon):
    page = await visit.open()
    button = card(page, "Scheduled").get_by_role("listitem").filter(has_text=noon).get_by_role("button")

    await button.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("Why")).to_be_focused()
    for key in ("Tab", "Tab", "Enter"):
        await page.keyboard.press(key)
    await page.get_by_role("dialog", name="Key").get_by_label("Key").fill(gateway.key)
    await page.keyboard.press("Enter")
    await expect(button).to_have_text("Resume")
    await expect(button).to_be_focused()
    for key in ("Enter", "Tab", "Tab", "Enter"):
        await page.keyboard.press(key)

    await expect(button).to_have_text("Pause")
    await expect(button).to_be_focused()


async def test_why_a_click_failed_stays_to_be_read_while_the_picture_moves_on(visit, gateway, noon):
    page = await visit.open()
    refusal = {"status": 503, "content_type": "application/problem+json", "body": '{"detail": "not just now"}'}
    await page.route("**/pause", lambda route: route.fulfill(**refusal))

    await page.get_by_role("button", name=f"Pause {noon}").click()
    await confirm(page, "Pause")
    await page.get_by_role("dialog", name="Key").get_by_label("Key").fill(gateway.key)
    await page.get_by_role("button", name="Use this key").click()
    await expect(page.get_by_role("alert")).to_have_text("not just now")
    run = await gateway.submit("bells.ring", args={"bell": "small"})
    await expect(state_of(page, run)).to_have_text("completed")

    await expect(page.get_by_role("alert")).to_have_text("not just now")
    # Chromium itself notes the answer.
    visit.complaints.clear()


async def test_what_looks_like_markup_is_shown_as_it_is(visit, gateway, markup, hostile):
    page = await visit.open()

    await expect(card(page, "Needs attention")).to_contain_text(f"the bell {hostile} cracked")
    await expect(card(page, "Scheduled")).to_contain_text(hostile)
    await expect(card(page, "Events")).to_contain_text(hostile)

    await visit.open(f"/runs/{markup}")
    for name in ("Facts", "Arguments", "Error", "Attempts"):
        await expect(card(page, name)).to_contain_text(hostile)

    await visit.open("/docs/events")
    await expect(page.locator("main")).to_contain_text("<img src=x onerror=")

    assert await page.locator("main img").count() == 0
    assert await page.evaluate("window.ran") is None


async def test_even_markup_that_got_into_a_page_would_not_run(visit, hostile):
    page = await visit.open()

    # The image that the markup names is asked for, and is not there.
    async with page.expect_console_message(lambda message: "404" in message.text):
        blocked = await page.evaluate(
            """(markup) => new Promise((resolve) => {
                addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
                document.body.insertAdjacentHTML("beforeend", markup);
            })""",
            hostile,
        )

    assert blocked == "script-src-attr"
    assert await page.evaluate("window.ran") is None
    visit.complaints.clear()


@pytest.mark.parametrize("address", PAGES, indirect=True)
async def test_a_page_asks_nobody_but_the_gateway(visit, address):
    page = await visit.open(address)
    await expect(page.get_by_role("heading", level=1)).to_be_visible()

    assert len(visit.requests) >= 3
    assert visit.elsewhere() == []


async def test_the_api_page_has_every_operation_and_leads_to_each(visit, gateway):
    document = await gateway.get("/openapi.json")
    operations = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}

    page = await visit.open("/docs")

    articles = page.locator("article", has=page.locator(".verb"))
    await expect(articles).to_have_count(len(operations))
    for path, method in operations:
        shown = articles.filter(has=page.get_by_role("heading", name=path, exact=True)).filter(has_text=method)
        await expect(shown.first).to_be_visible()
    await page.locator("aside").get_by_role("link", name="Problems").click()
    await expect(page.locator("#problems")).to_be_in_viewport()


async def test_the_event_page_has_every_channel_with_who_says_it(visit, gateway):
    document = await gateway.get("/asyncapi.json")
    types = [event["type"] for event in (await gateway.get("/api/v1/event-types"))["event_types"]]

    page = await visit.open("/docs/events")

    assert types == ["bells.bell_rung.v1"]
    assert all(type_ in str(document["channels"]) for type_ in types)
    for type_ in types:
        article = page.get_by_role("article").filter(has=page.get_by_role("heading", name=type_, exact=True))
        await expect(article).to_contain_text("Said by bells.ring")
        await expect(article).to_contain_text("Heard by bells.write_down_the_ring_in_the_book_of_bells")
        await expect(article.get_by_role("cell", name="bell", exact=False).first).to_be_visible()


@pytest.mark.parametrize("path", ["/docs", "/docs/events"])
async def test_the_examples_can_be_copied_as_they_are(visit, gateway, path):
    page = await visit.open(path)

    examples = await page.get_by_label("Example").all_inner_texts()

    assert examples
    assert [example for example in examples if f"{gateway.url}/" not in example] == []


@pytest.mark.parametrize("name", ["Recent runs", "Scheduled"])
async def test_names_are_whole_on_a_telephone(tab, markup, name):
    visit = await tab(viewport={"width": 390, "height": 844}, is_mobile=True)

    page = await visit.open()
    await expect(card(page, name).locator(".strong").first).to_be_visible()

    assert await card(page, name).locator(".strong").evaluate_all(WHOLE) == []


async def test_the_runs_of_a_chain_are_whole_on_a_telephone(tab, gateway, markup):
    visit = await tab(viewport={"width": 390, "height": 844}, is_mobile=True)
    run = await gateway.submit("bells.ring", args={"bell": "great"})

    page = await visit.open(f"/runs/{run}")
    await expect(card(page, "Chain").get_by_role("listitem").locator(".state")).to_have_text("completed")

    assert await card(page, "Chain").get_by_role("listitem").locator("a").evaluate_all(WHOLE) == []


@pytest.mark.parametrize("address", PAGES, indirect=True)
async def test_a_page_fits_a_telephone(tab, address):
    visit = await tab(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)

    page = await visit.open(address)
    await expect(page.get_by_role("heading", level=1)).to_be_visible()

    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    assert await page.evaluate("innerWidth") == 390


async def contrast(page):
    """What stands out how much, once the script has filled the page."""
    seen = await page.evaluate(CONTRAST)
    return seen if seen["words"] > 20 else None


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", PAGES, indirect=True)
async def test_every_word_stands_out_from_what_is_behind_it(tab, address, scheme):
    visit = await tab(color_scheme=scheme, reduced_motion="reduce")

    page = await visit.open(address)
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    seen = await eventually(lambda: contrast(page))

    assert (seen["page"] < 0.1) == (scheme == "dark")
    assert seen["faint"] == []
