"""What the tests of the pages look at and press in the same way."""

from __future__ import annotations

from playwright.async_api import Locator, Page


def card(page: Page, name: str) -> Locator:
    """A part of a page, by its heading."""
    return page.get_by_role("region", name=name)


async def confirm(page: Page, verb: str, reason: str | None = None) -> None:
    """Say why in the window that is open, and do it."""
    dialog = page.get_by_role("dialog")
    if reason is not None:
        await dialog.get_by_label("Why").fill(reason)
    await dialog.get_by_role("button", name=verb, exact=True).click()
