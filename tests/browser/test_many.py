"""What failed is dealt with, one by one or together; an act on many runs does exactly what its preview showed."""

from __future__ import annotations

import json
import re

import pytest
import pytest_asyncio
from playwright.async_api import expect
from tests.browser.looking import card, confirm

from carillon.ids import new_id
from carillon.platform import Platform

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("bells")]


def dialog(page):
    return page.get_by_role("dialog")


@pytest_asyncio.fixture(loop_scope="module")
async def untuned(gateway, gate):
    """Three runs that failed in the same way, and the address of their group; nothing else needs a person."""
    for group in (await gateway.get("/api/v1/dead-letters"))["runs"]:
        await gateway.post(f"/api/v1/dead-letters/{group['fingerprint']}/discard", {"task": group["task"]})
    runs = [await gateway.submit("bells.tune", args={"bell": f"bell {n}", "hertz": 0}) for n in range(3)]
    await gateway.ended(*runs)
    (group,) = (await gateway.get("/api/v1/dead-letters"))["runs"]
    return f"/dead-letters/{group['fingerprint']}?task=bells.tune"


@pytest_asyncio.fixture(loop_scope="module")
async def waiting(gateway, request):
    """Twelve runs with a label of their own, that wait for tomorrow."""
    label = re.sub(r"\W", "", request.node.name)
    body = [
        {"task": "bells.ring", "args": {"bell": f"{n}"}, "labels": {"tour": label}, "delay": 86400} for n in range(12)
    ]
    await gateway.post("/api/v1/tasks/batch", {"tasks": body})
    return label


@pytest_asyncio.fixture(loop_scope="module")
async def unreadable(settings):
    """Two messages that nobody could read: a text that is markup, and bytes.

    What an earlier test left is thrown away here and not at the end, where the page of a test still asks for it.
    """
    async with Platform(settings, name="test") as platform:
        await platform.ledger.pool.execute("delete from carillon.dead_letters")
        for body, reason in (
            (b'{"bell": <img src=x onerror="window.ran = true">}', "no JSON"),
            (b"\xff\x00ABC", "no UTF-8"),
        ):
            headers = json.dumps({"from": "<img src=x onerror='window.ran = true'>"})
            await platform.ledger.bury_message(new_id(), "bells", "carillon.bells", reason, body, headers)
        groups = await platform.ledger.dead_letters.messages()
    return {group.message: f"/dead-letters/{group.fingerprint}" for group in groups}


def states_of(found):
    return sorted(run["state"] for run in found["runs"])


async def test_failures_are_grouped_and_lead_to_their_runs(visit, untuned):
    page = await visit.open("/dead-letters")
    group = card(page, "Failed runs").get_by_role("listitem")

    await expect(group).to_have_count(1)
    await expect(group.locator(".count")).to_have_text("3")
    await expect(group).to_contain_text("bells.tune")
    await group.get_by_role("link").click()

    await expect(page).to_have_url(re.compile(re.escape(untuned)))
    await expect(page.get_by_role("heading", level=1)).to_have_text("PermanentError")
    await expect(card(page, "Runs").get_by_role("listitem")).to_have_count(3)
    await expect(card(page, "Runs")).to_contain_text('{"bell":"bell 0","hertz":0}')


async def test_one_failure_is_mended_and_run_again(operator, gateway, untuned):
    operator.may_be_refused = True
    page = await operator.open(untuned)
    failure = card(page, "Runs").get_by_role("listitem").filter(has_text="bell 1")

    await failure.get_by_role("button", name="Edit and run again").click()
    await dialog(page).get_by_label("hertz").fill('"high"')
    await confirm(page, "Run again")
    await expect(dialog(page).locator("#argument-hertz-fault")).to_have_text("must be integer")
    assert (await gateway.get("/api/v1/dead-letters"))["runs"][0]["count"] == 3
    await dialog(page).get_by_label("hertz").fill("220")
    await confirm(page, "Run again", "it was mistyped")

    await expect(page.locator("#notice")).to_contain_text("Runs again as a run of its own.")
    await expect(card(page, "Runs").get_by_role("listitem")).to_have_count(2)
    made = (await page.locator("#notice a").get_attribute("href")).removeprefix("/runs/")
    await gateway.ended(made)
    assert (await gateway.get(f"/api/v1/runs/{made}"))["args"] == {"bell": "bell 1", "hertz": 220}


async def test_a_group_runs_again_after_one_that_goes_ahead(operator, gateway, gate, untuned):
    operator.may_be_refused = True
    page = await operator.open(untuned)
    gate.mended = True

    await page.get_by_role("button", name="Run all again").click()
    await dialog(page).get_by_label("Runs started each second").fill("100")
    await confirm(page, "Run 3 runs again", "tones may be nothing now")

    await expect(dialog(page)).to_contain_text("3 of 3 runs handed over to run again")
    await expect(dialog(page)).to_contain_text(
        "The run that goes ahead completed and the others follow, 100 each second."
    )
    await expect(dialog(page)).to_contain_text("3 completed")
    await dialog(page).get_by_role("button", name="Close").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Nothing is left of this group")


async def test_when_the_one_ahead_fails_the_others_stay(operator, gateway, untuned):
    operator.may_be_refused = True
    page = await operator.open(untuned)

    await page.get_by_role("button", name="Run all again").click()
    await confirm(page, "Run 3 runs again")

    await expect(dialog(page)).to_contain_text("so the others are cancelled; what they repeat stays a dead letter.")
    await expect(dialog(page)).to_contain_text("1 failed · 2 cancelled")
    await dialog(page).get_by_role("button", name="Close").click()
    await expect(card(page, "Runs").get_by_role("listitem")).to_have_count(3)


async def test_a_discarded_group_says_that_nothing_is_left(operator, gateway, untuned):
    operator.may_be_refused = True
    page = await operator.open(untuned)

    await page.get_by_role("button", name="Discard all").click()
    await confirm(page, "Discard 3 runs", "nobody needs them")

    await expect(page.get_by_role("heading", level=1)).to_have_text("Nothing is left of this group")
    await expect(page.locator("#notice")).to_have_text("3 runs discarded.")
    await operator.open("/dead-letters")
    await expect(card(page, "Failed runs")).to_contain_text("Nothing to do. A run that fails for good waits here")


async def test_a_message_is_shown_as_text_and_mended(operator, unreadable):
    page = await operator.open(unreadable["no JSON"])
    await expect(page.locator("pre.body")).to_have_text('{"bell": <img src=x onerror="window.ran = true">}')
    sent = []

    async def take(route):
        sent.append(route.request.post_data_json)
        await route.fulfill(json={"id": "0", "queue": "carillon.bells"})

    await page.route("**/redeliver", take)
    await page.get_by_role("button", name="Edit and redeliver").click()
    await dialog(page).get_by_label("Body").fill('{"bell": "great"}')
    await confirm(page, "Redeliver", "a quote was missing")

    await expect(page.locator("#notice")).to_contain_text("Handed to carillon.bells again")
    assert sent == [{"body": '{"bell": "great"}', "reason": "a quote was missing"}]
    assert await page.evaluate("window.ran") is None


async def test_bytes_are_shown_in_hexadecimal_and_go_as_they_are(operator, unreadable):
    operator.may_be_refused = True
    page = await operator.open(unreadable["no UTF-8"])
    await expect(page.locator("pre.body")).to_contain_text("000000  ff 00 41 42 43")
    await expect(page.locator("pre.body")).to_contain_text("..ABC")

    await page.get_by_role("button", name="Redeliver", exact=True).click()
    await expect(dialog(page)).to_contain_text("It is no text")
    await confirm(page, "Redeliver")

    # PostgreSQL, the transport here, has no queues that messages could go back to.
    await expect(dialog(page).get_by_role("alert")).to_contain_text("RabbitMQ")


async def test_a_group_of_messages_is_redelivered_at_once_where_there_are_queues(operator, gateway, unreadable):
    operator.may_be_refused = True
    page = await operator.open(unreadable["no JSON"])

    await page.get_by_role("button", name="Redeliver all").click()
    await confirm(page, "Redeliver 1 message", "mended")

    await expect(dialog(page).get_by_role("alert")).to_contain_text("set RABBIT_URL")
    assert len((await gateway.get("/api/v1/dead-letters"))["messages"]) == 2


async def test_messages_are_discarded_for_good(operator, gateway, unreadable):
    operator.may_be_refused = True
    page = await operator.open(unreadable["no JSON"])

    await page.get_by_role("button", name="Discard all").click()
    await confirm(page, "Discard 1 message")

    await expect(page.locator("#notice")).to_have_text("1 message discarded.")
    assert [group["error"] for group in (await gateway.get("/api/v1/dead-letters"))["messages"]] == ["no UTF-8"]


async def test_an_act_on_many_does_what_its_preview_showed(operator, gateway, waiting):
    page = await operator.open("/runs")
    await page.get_by_label("Label").fill(f"tour:{waiting}")
    await expect(card(page, "Found runs").get_by_role("row")).to_have_count(13)

    await card(page, "Found runs").get_by_role("button", name="Cancel").click()
    await expect(dialog(page)).to_contain_text("12 runs, here are 10.")
    await expect(dialog(page).get_by_role("list").get_by_role("listitem")).to_have_count(10)
    late = await gateway.submit("bells.ring", args={"bell": "late"}, labels={"tour": waiting}, delay=86400)
    await confirm(page, "Cancel 12 runs", "the tour is off")

    await expect(dialog(page)).to_contain_text("12 of 12 runs cancelled")
    await expect(dialog(page).get_by_role("progressbar")).to_have_attribute("value", "12")
    await dialog(page).get_by_role("button", name="Close").click()
    await expect(page.locator("#notice")).to_have_text("12 runs were cancelled.")
    await expect(card(page, "Found runs").get_by_text("queued")).to_have_count(1)
    assert states_of(await gateway.get(f"/api/v1/runs?label=tour:{waiting}")) == ["cancelled"] * 12 + ["queued"]
    assert (await gateway.get(f"/api/v1/runs/{late}"))["status"] == "queued"


async def test_who_goes_back_from_a_preview_changes_nothing(operator, gateway, waiting):
    page = await operator.open(f"/runs?label=tour:{waiting}")

    await card(page, "Found runs").get_by_role("button", name="Cancel").click()
    await expect(dialog(page)).to_contain_text("12 runs")
    await page.keyboard.press("Escape")

    await expect(dialog(page)).to_have_count(0)
    await expect(card(page, "Found runs").get_by_role("button", name="Cancel")).to_be_focused()
    assert states_of(await gateway.get(f"/api/v1/runs?label=tour:{waiting}")) == ["queued"] * 12


async def test_what_fits_no_run_offers_no_act(operator, waiting):
    page = await operator.open(f"/runs?label=tour:{waiting}")

    await card(page, "Found runs").get_by_role("button", name="Delete").click()

    await expect(dialog(page)).to_contain_text("None of the runs that fit has ended, so there is nothing to do.")
    await expect(dialog(page).get_by_role("button")).to_have_text("Back")


async def test_all_runs_at_once_are_not_meant_by_chance(operator, waiting):
    page = await operator.open("/runs")

    await card(page, "Found runs").get_by_role("button", name="Delete").click()

    await expect(page.get_by_role("alert")).to_have_text("Say first which runs are meant: set at least one filter.")
    assert not any("/selections" in url for url in operator.requests)


async def test_the_history_is_turned_page_by_page(visit, gateway, request):
    label = request.node.name.replace("_", "-")
    body = [
        {"task": "bells.ring", "args": {"bell": f"{n}"}, "labels": {"book": label}, "delay": 86400} for n in range(30)
    ]
    await gateway.post("/api/v1/tasks/batch", {"tasks": body})
    page = await visit.open(f"/runs?label=book:{label}")
    rows, pages = card(page, "Found runs").locator("tbody tr"), page.get_by_role("navigation", name="Pages of runs")
    await expect(rows).to_have_count(25)
    first = await rows.locator("a").evaluate_all("(links) => links.map((link) => link.href)")

    await pages.get_by_role("button", name="Older").press("Enter")

    await expect(pages).to_contain_text("Page 2")
    await expect(rows).to_have_count(5)
    second = await rows.locator("a").evaluate_all("(links) => links.map((link) => link.href)")
    assert not set(first) & set(second)

    await pages.get_by_role("button", name="Newer").press("Enter")

    await expect(rows).to_have_count(25)
    assert await rows.locator("a").evaluate_all("(links) => links.map((link) => link.href)") == first


async def test_filters_stay_in_the_address(visit, waiting):
    page = await visit.open("/runs")

    await page.get_by_label("Label").fill(f"tour:{waiting}")
    await page.locator("label.chip").filter(has_text="queued").click()
    await expect(page).to_have_url(re.compile("state=queued"))
    await page.reload()

    await expect(page.get_by_label("Label")).to_have_value(f"tour:{waiting}")
    await expect(page.get_by_role("checkbox", name="queued")).to_be_checked()
    await expect(card(page, "Found runs").locator("tbody tr")).to_have_count(12)


async def test_a_filter_that_cannot_be_is_explained(visit):
    visit.may_be_refused = True
    page = await visit.open("/runs?label=nonsense")

    await expect(card(page, "Found runs")).to_contain_text("label")
    await expect(card(page, "Found runs")).to_contain_text("pattern")


async def test_the_audit_page_says_who_did_what_and_holds(operator, gateway, waiting):
    run = await gateway.submit("bells.ring", args={"bell": "great"}, delay=86400)
    await gateway.post(f"/api/v1/runs/{run}/cancel", {"reason": "nobody listens"})
    page = await operator.open("/audit")

    await expect(page.locator("#verdict")).to_contain_text("the chain holds")
    newest = card(page, "Entries").get_by_role("listitem").first
    await expect(newest).to_contain_text("run.cancelled")
    await expect(newest).to_contain_text("nobody listens")
    await expect(newest).to_contain_text("local")

    await page.get_by_label("What was done").select_option("key.created")

    await expect(card(page, "Entries").get_by_role("listitem")).to_have_count(1)
    await expect(card(page, "Entries")).to_contain_text("key.created local")


async def test_markup_is_text_wherever_it_is_shown(operator, gateway, hostile):
    args = {"bell": hostile, "hertz": 0}
    run = await gateway.submit("bells.tune", args=args, labels={"place": hostile})
    await gateway.ended(run)
    page = await operator.open(f"/runs/{run}")
    await page.get_by_role("button", name="Run again").click()
    await expect(dialog(page).get_by_label("bell")).to_have_value(hostile)
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Settle").click()
    await confirm(page, "Settle", hostile)
    await expect(card(page, "Life")).to_contain_text(hostile)
    await operator.open(f"/runs?label=place:{hostile}")
    await expect(card(page, "Found runs")).to_contain_text(f"the bell {hostile}")
    failed = await gateway.submit("bells.crack", args={"bell": hostile})
    await gateway.ended(failed)
    await operator.open("/dead-letters")
    await card(page, "Failed runs").get_by_role("link", name=re.compile("onerror")).first.click()
    await expect(card(page, "Runs").get_by_role("listitem").first).to_contain_text(hostile)
    await operator.open("/audit")
    await expect(card(page, "Entries")).to_contain_text(hostile)

    assert await page.locator("main img").count() == 0
    assert await page.evaluate("window.ran") is None
