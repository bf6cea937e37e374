"""The page of statistics tells what the ledger holds: the right numbers, of the window and filter that were chosen."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlencode, urlsplit

import asyncpg
import pytest
import pytest_asyncio
from playwright.async_api import expect
from tests.browser.looking import card

from carillon.ledger import days

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=2)
HOUR = timedelta(hours=1)
#: $2 runs of a task that ended in a state at $4 after $5 seconds, or before they began (null); each waited $6 seconds.
ENDED = """
insert into carillon.runs
    (id, ended_on, domain, task, state, args, attempt, created_at, run_at, started_at, finished_at)
select gen_random_uuid(), (at at time zone 'UTC')::date, split_part($1, '.', 1), $1, $3, '{}', $7, at - took - waited,
    at - took - waited, case when $5::float8 is null then null else at - took end, at
from generate_series(1, $2) n, lateral (select $4::timestamptz as at, coalesce($5::float8, 0) * interval '1 second'
    as took, $6::float8 * interval '1 second' as waited) of_it
"""
#: What the seeded tasks are, by the first column of their line and those that follow, as the page shows them.
LINES = {
    "shop.add": ["80\n80 / h", "20\n80 %", "25 %", "4\n5 %", "2.7 min\n57 %", "2.0 s", "2.0 s", "2.0 s"],
    "mail.send": ["15\n15 / h", "0", "0 %", "0", "300 ms\n0.1 %", "20 ms", "20 ms", "20 ms"],
    "shop.pay": ["5\n5 / h", "5\n20 %", "100 %", "0", "2.0 min\n43 %", "24 s", "24 s", "24 s"],
    "mail.forget": ["2\n2 / h", "0", "—", "0", "0 s", "—", "—", "—"],
}
#: The texts of the elements that are wider than their box, or reach out of the page.
OVERFLOWING = """(elements) => elements.filter((element) => {
    const box = element.getBoundingClientRect();
    return element.checkVisibility() && !element.matches(".unseen")
        && (element.scrollWidth > Math.ceil(box.width) || box.left < 0 || box.right > innerWidth);
}).map((element) => `${element.tagName} ${element.textContent}`)"""

#: Whether nothing lies above an element, all across the page at this height.
UNCOVERED = """([selector, y]) => Array.from({ length: 300 }, (_, n) => document.elementFromPoint(30 + 4 * n, y))
    .every((element) => element.closest(selector))"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ledger(settings, gateway):
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    await days.make(connection, since=(NOON - timedelta(days=8)).date())
    yield connection
    await connection.close()


@pytest_asyncio.fixture(loop_scope="module")
async def past(ledger):
    """What happened around noon, two days ago, and lately; answers the address of the page with that noon's hour."""
    half = NOON + HOUR / 2
    for task, count, state, at, took, waited, attempt in (
        ("shop.add", 56, "completed", NOON, 2, 0.5, 1),
        ("shop.add", 4, "completed", half, 2, 0.5, 2),
        ("shop.add", 20, "failed", half, 2, 0.5, 1),
        ("shop.pay", 5, "failed", half, 24, 90, 1),
        ("mail.send", 15, "completed", NOON, 0.02, 0, 1),
        ("mail.forget", 2, "cancelled", NOON, None, 0, 1),
        ("late.hour", 1, "completed", datetime.now(UTC) - HOUR / 2, 1, 0, 1),
        ("late.day", 2, "completed", datetime.now(UTC) - 5 * HOUR, 1, 0, 1),
        ("late.week", 3, "completed", datetime.now(UTC) - 75 * HOUR, 1, 0, 1),
    ):
        await ledger.execute(ENDED, task, count, state, at, took, waited, attempt)
    yield address()
    await ledger.execute("truncate carillon.runs")


@pytest_asyncio.fixture(loop_scope="module")
async def forty(ledger):
    """Forty tasks with names that are hard to place."""
    for n in range(40):
        name = f"a_domain_with_a_long_name.reconcile_the_ledger_{'andthenonceagain' * (n % 3)}_{n}"
        await ledger.execute(ENDED, name, 10 ** (n % 5), "failed" if n % 4 else "completed", NOON, 10 ** (n % 7), 3, 1)
    yield address()
    await ledger.execute("truncate carillon.runs")


def address(**more):
    window = {"window": "own", "since": NOON.isoformat(), "until": (NOON + HOUR).isoformat()}
    return f"/statistics?{urlencode(window | more)}"


def told(page, name):
    """A figure of the totals."""
    return page.locator(".figure", has=page.locator("dt", has_text=re.compile(rf"^{name}$"))).locator("dd")


def lines(page):
    return card(page, "Tasks").locator("tbody tr")


def names(page):
    return lines(page).get_by_role("rowheader")


def link(page, name):
    return card(page, "Tasks").get_by_role("link", name=name, exact=True)


def sort_button(page, name):
    return card(page, "Tasks").get_by_role("button", name=name, exact=True)


def said(page):
    """What the address says."""
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


async def test_the_totals_are_those_of_the_window(visit, past):
    page = await visit.open(past)

    await expect(told(page, "Ended")).to_have_text("102of them 2 cancelled")
    await expect(told(page, "Per hour")).to_have_text("1021.7 a minute")
    await expect(told(page, "Failed")).to_have_text("25 %25 of 100 executed")
    await expect(told(page, "Retried")).to_have_text("43.9 % of what ended")
    await expect(told(page, "Time taken")).to_have_text("4.7 min0.08 at once on average")
    await expect(told(page, "Not ended")).to_have_text("0now: wait or run")


async def test_each_task_has_its_own_numbers(visit, past):
    page = await visit.open(past)
    await expect(lines(page)).to_have_count(len(LINES))

    for line, (name, cells) in zip(await lines(page).all(), LINES.items(), strict=True):
        shown = [text.replace("\n\n", "\n").strip() for text in await line.locator("th, td").all_inner_texts()]
        assert shown[: 1 + len(cells)] == [name, *cells]
    waited = [(await line.locator("td").all_inner_texts())[8:11] for line in await lines(page).all()]
    assert waited == [["500 ms"] * 3, ["0 s"] * 3, ["1.5 min"] * 3, ["—"] * 3]


async def test_a_spread_lies_where_the_axis_says(visit, past):
    page = await visit.open(past)
    await expect(lines(page)).to_have_count(len(LINES))

    where = "(marks) => marks.map((mark) => [mark.textContent, parseFloat(mark.getAttribute('x'))])"
    marks = dict(await page.locator(".axis text").evaluate_all(where))
    assert list(marks) == ["10 ms", "1 s", "1 min"]
    for name, seconds in (("shop.add", 2), ("shop.pay", 24), ("mail.send", 0.02)):
        low, high = ((0.01, "10 ms"), (1, "1 s")) if seconds < 1 else ((1, "1 s"), (60, "1 min"))
        part = math.log(seconds / low[0]) / math.log(high[0] / low[0])
        expected = marks[low[1]] + (marks[high[1]] - marks[low[1]]) * part
        dot = lines(page).filter(has_text=name).locator(".duration circle")
        assert float((await dot.get_attribute("cx")).rstrip("%")) == pytest.approx(expected, abs=0.1)
    await expect(lines(page).filter(has_text="mail.forget").locator("circle")).to_have_count(0)


async def test_how_it_went_is_drawn_and_told_minute_by_minute(visit, past):
    page = await visit.open(past)
    course = card(page, "Over the window")

    await expect(course).to_contain_text("Most in a minute: 73")
    await expect(course).to_contain_text("Most failures: 25")
    await course.get_by_text("Every minute in numbers").click()

    cells = course.locator("tbody").get_by_role("cell")
    await expect(cells).to_have_text(["73", "0", "29", "25"])
    heights = (
        "(bars) => bars.map((bar) => [bar.getAttribute('class'), Math.round(parseFloat(bar.getAttribute('height')))])"
    )
    bars = await course.locator(".bars rect").evaluate_all(heights)
    assert bars == [["others", 100], ["others", round(100 * 4 / 73)], ["failed", round(100 * 25 / 73)]]


async def test_a_filter_leaves_what_fits_and_is_kept_in_the_address(visit, past):
    page = await visit.open(past)
    await expect(lines(page)).to_have_count(len(LINES))

    await page.get_by_label("Domain").fill("mail")

    await expect(names(page)).to_have_text(["mail.send", "mail.forget"])
    await expect(told(page, "Ended")).to_contain_text("17")
    await page.get_by_label("Task", exact=True).fill("mail.send")
    await expect(names(page)).to_have_text(["mail.send"])
    assert said(page) | {"domain": "mail", "task": "mail.send"} == said(page)

    await page.reload()
    await expect(names(page)).to_have_text(["mail.send"])
    await expect(page.get_by_label("Task", exact=True)).to_have_value("mail.send")


@pytest.mark.parametrize(
    ("window", "found"),
    [
        ("Last hour", ["late.hour"]),
        ("Last day", ["late.day", "late.hour"]),
        ("Last week", ["late.week", "late.day", "late.hour"]),
    ],
)
async def test_a_window_is_chosen_and_kept_in_the_address(visit, past, window, found):
    page = await visit.open("/statistics?domain=late&window=own&until=2020-01-01T00:00:00Z")
    await expect(card(page, "Tasks")).to_contain_text("Nothing that fits ended in this window.")

    await page.get_by_role("radio", name=window).check(force=True)

    await expect(names(page)).to_have_text(found)
    assert "until" not in said(page)
    await page.reload()
    await expect(page.get_by_role("radio", name=window)).to_be_checked()
    await expect(names(page)).to_have_text(found)


async def test_the_day_is_what_is_shown_first(visit, past):
    page = await visit.open("/statistics?domain=late")

    await expect(names(page)).to_have_text(["late.day", "late.hour"])
    await expect(page.get_by_role("radio", name="Last day")).to_be_checked()


async def test_a_window_of_ones_own_means_the_same_to_whoever_it_is_sent_to(tab, past):
    here = await (await tab(timezone_id="Asia/Kolkata")).open("/statistics?domain=shop")
    await expect(card(here, "Tasks")).to_contain_text("Nothing that fits")

    await here.get_by_role("radio", name="From").check(force=True)
    await expect(here.get_by_label("Ended until")).not_to_have_value("")
    kolkata = timedelta(hours=5, minutes=30)
    await here.get_by_label("Ended from").fill(f"{NOON + kolkata:%Y-%m-%dT%H:%M}")
    await here.get_by_label("Ended until").fill(f"{NOON + kolkata + HOUR / 3:%Y-%m-%dT%H:%M}")

    await expect(lines(here).locator("td").first).to_contain_text("56")
    assert said(here)["since"] == f"{NOON:%Y-%m-%dT%H:%M}:00.000Z"
    sent = f"/statistics?{urlsplit(here.url).query}"
    there = await (await tab(timezone_id="America/New_York")).open(sent)
    await expect(lines(there).locator("td").first).to_contain_text("56")
    assert said(there) == said(here)


async def test_what_the_window_allows_is_said_in_the_words_of_the_api(visit, past):
    visit.may_be_refused = True
    page = await visit.open(past)
    await expect(lines(page)).to_have_count(len(LINES))

    await page.get_by_label("Ended from").fill("2024-01-01T00:00")

    await expect(page.get_by_role("alert")).to_have_text("A window ends after it begins, and is at most 31 days long.")
    await expect(lines(page)).to_have_count(0)
    await expect(told(page, "Ended")).to_have_count(0)
    await page.get_by_role("radio", name="Last week").check(force=True)
    await expect(lines(page).first).to_be_visible()
    await expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize(
    ("column", "order"),
    [
        ("Task", ["mail.forget", "mail.send", "shop.add", "shop.pay"]),
        ("Failed", ["shop.add", "shop.pay", "mail.send", "mail.forget"]),
        ("Failed share", ["shop.pay", "shop.add", "mail.send", "mail.forget"]),
        ("Retried", ["shop.add", "mail.send", "shop.pay", "mail.forget"]),
        ("Time taken", ["shop.add", "shop.pay", "mail.send", "mail.forget"]),
        ("Took p95", ["shop.pay", "shop.add", "mail.send", "mail.forget"]),
        ("Waited p50", ["shop.pay", "shop.add", "mail.send", "mail.forget"]),
    ],
)
async def test_a_column_sorts_and_what_has_no_value_comes_last(visit, past, column, order):
    page = await visit.open(past)
    head = card(page, "Tasks").get_by_role("columnheader", name=column, exact=True)
    await expect(card(page, "Tasks").get_by_role("columnheader", name="Ended")).to_have_attribute(
        "aria-sort", "descending"
    )

    await sort_button(page, column).click()

    await expect(names(page)).to_have_text(order)
    await expect(head).to_have_attribute("aria-sort", "ascending" if column == "Task" else "descending")
    await expect(card(page, "Tasks").locator("[aria-sort]")).to_have_count(1)


async def test_sorting_goes_by_keyboard_both_ways_and_is_kept_in_the_address(visit, past):
    page = await visit.open(past)

    await sort_button(page, "Failed share").focus()
    await page.keyboard.press("Enter")
    await expect(names(page).first).to_have_text("shop.pay")
    await expect(sort_button(page, "Failed share")).to_be_focused()
    await page.keyboard.press("Space")

    await expect(names(page)).to_have_text(["mail.send", "shop.add", "shop.pay", "mail.forget"])
    await expect(sort_button(page, "Failed share")).to_be_focused()
    assert said(page)["sort"] == "share"
    await page.reload()
    await expect(names(page).first).to_have_text("mail.send")


async def test_a_task_leads_to_its_runs_of_the_same_window(visit, past, ledger):
    # The same task at another time, which is not meant.
    await ledger.execute(ENDED, "shop.pay", 3, "failed", NOON - HOUR, 1, 0, 1)
    page = await visit.open(past)

    await link(page, "5 failed, of shop.pay").click()

    found = page.get_by_role("region", name="Found runs").locator("tbody tr")
    await expect(found).to_have_count(5)
    assert said(page)["state"] == "failed"
    await page.go_back()
    await link(page, "mail.send").click()
    await expect(found).to_have_count(15)


async def test_a_total_leads_to_the_runs_that_it_counts(visit, past, ledger):
    # The same task at other times, and others, which are not meant.
    for at in (NOON - HOUR, NOON + HOUR):
        await ledger.execute(ENDED, "shop.pay", 3, "failed", at, 1, 0, 1)
    await ledger.execute(
        "insert into carillon.runs (id, domain, task, state, args) select gen_random_uuid(), split_part(t, '.', 1), t, "
        "'paused', '{}' from unnest(array['shop.pay', 'mail.send', 'shop.pay']) t"
    )
    page = await visit.open(f"{past}&task=shop.pay")
    found = page.get_by_role("region", name="Found runs").locator("tbody tr")

    for name, count in (("Ended", 5), ("Failed", 5), ("Not ended", 2)):
        await expect(told(page, name)).to_be_visible()
        await page.locator(".figure dt").get_by_role("link", name=name, exact=True).click()
        await expect(found).to_have_count(count)
        await page.go_back()

    await page.get_by_label("Task", exact=True).fill("mail.send")
    await page.get_by_role("radio", name="Last day").check(force=True)
    await card(page, "Tasks").get_by_role("link", name="1 run has").click()
    await expect(found).to_have_count(1)


async def test_where_nothing_ended_it_says_what_to_do(visit, past):
    page = await visit.open("/statistics?window=own&until=2020-01-01T00:00:00Z")

    await expect(card(page, "Tasks")).to_contain_text("Nothing ended in this window. Choose a longer one, or submit")
    await page.get_by_label("Task", exact=True).fill("shop.nothing")

    await expect(card(page, "Tasks")).to_contain_text("Choose a longer one, or take a filter away")
    await expect(told(page, "Failed")).to_have_text("—nothing was executed")


async def test_estimates_are_called_so(visit, past):
    page = visit.page

    async def shared(route):
        answer = await route.fetch()
        await route.fulfill(response=answer, json=await answer.json() | {"share": 0.05})

    await page.route("**/api/v1/statistics?*", shared)
    await visit.open(past)

    await expect(page.locator("#asked")).to_contain_text("the numbers are estimated, from 5 % of it.")


async def test_it_keeps_itself_up_to_date_while_it_is_looked_at_and_rests_in_a_hidden_tab(visit, past, ledger):
    page = visit.page
    await page.clock.install()
    await page.add_init_script("Object.defineProperty(document, 'hidden', { get: () => window.isAway === true })")
    await visit.open("/statistics?domain=late&window=hour")
    await expect(names(page)).to_have_text(["late.hour"])

    await page.evaluate("window.isAway = true")
    await page.clock.run_for(15_000)
    asked = len(visit.requests)
    await ledger.execute(ENDED, "late.news", 2, "completed", datetime.now(UTC), 1, 0, 1)
    await page.clock.run_for(60_000)
    assert len(visit.requests) == asked

    await page.evaluate("window.isAway = false")
    await page.clock.run_for(2_000)
    await expect(names(page)).to_have_text(["late.news", "late.hour"])


async def test_who_stands_in_the_table_keeps_their_place_when_it_is_counted_anew(visit, past, ledger):
    page = visit.page
    await page.clock.install()
    await visit.open("/statistics?domain=late&window=day")
    await link(page, "late.hour").focus()

    await ledger.execute(ENDED, "late.hour", 7, "completed", datetime.now(UTC), 1, 0, 1)
    await page.clock.run_for(60_000)

    await expect(names(page)).to_have_text(["late.hour", "late.day"])
    await expect(link(page, "late.hour")).to_be_focused()


@pytest.mark.parametrize("width", [360, 1180, 1181, 1280])
async def test_forty_long_names_fit(tab, forty, width):
    visit = await tab(viewport={"width": width, "height": 900})

    page = await visit.open(forty)
    await expect(lines(page)).to_have_count(40)
    await page.get_by_text("Every minute in numbers").click()

    assert await page.evaluate("document.documentElement.scrollWidth") == width
    parts = page.locator("main").locator("h1, h2, dt, dd, p, th, td, th a, td a, td span, th button, svg, label, .card")
    assert await parts.evaluate_all(OVERFLOWING) == []


async def test_the_head_of_the_table_and_the_bar_stay_in_reach_below(tab, forty):
    visit = await tab(viewport={"width": 1280, "height": 700})
    page = await visit.open(forty)
    await expect(lines(page)).to_have_count(40)

    await page.mouse.wheel(0, 1500)
    await page.wait_for_function("scrollY > 1000")

    await expect(sort_button(page, "Failed")).to_be_in_viewport()
    assert await page.evaluate(UNCOVERED, ["body > .bar", 30])
    assert await page.evaluate(UNCOVERED, [".numbers thead", 90])
    await sort_button(page, "Failed").click()
    await expect(names(page).first).to_contain_text("_39")
