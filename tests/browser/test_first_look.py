"""What somebody sees who has just started a gateway, and nothing else yet."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="module")


ADVICE = {
    "Running now": "carillon tour",
    "Needs attention": "Nothing failed",
    "Recent runs": "Submit one: POST /api/v1/tasks",
    "Events": "post a CloudEvent to /api/v1/events",
    "Scheduled": "services bring theirs when they start, with carillon serve",
    "Domains": "Start one: carillon serve backup",
    "Workers": "nothing runs. Start one: carillon serve backup",
}


async def test_every_empty_card_says_what_to_do(visit):
    page = await visit.open()

    await expect(page.get_by_role("region")).to_have_count(len(ADVICE))
    for card, advice in ADVICE.items():
        await expect(page.get_by_role("region", name=card)).to_contain_text(advice)


async def test_the_empty_page_leads_to_how_a_run_is_submitted(visit):
    page = await visit.open()

    await page.get_by_role("region", name="Recent runs").get_by_role("link", name="how").click()

    await expect(page.get_by_role("heading", name="/api/v1/tasks", exact=True).first).to_be_visible()


async def test_without_events_their_page_says_what_to_start(visit):
    page = await visit.open("/docs/events")

    await expect(page.locator("main")).to_contain_text("Start one: carillon serve backup")
