"""What nobody could read: how much of it is kept, and for how long."""

from __future__ import annotations

from datetime import timedelta

import pytest

from carillon.errors import InvalidArgumentsError
from carillon.ledger.audit import Actor
from carillon.ledger.dead_letters import MOST_KEPT_BYTES

pytestmark = pytest.mark.real("unreadable messages")

ADA = Actor("ada", "a test")


@pytest.fixture
def transport() -> str:
    return "postgres"


@pytest.mark.parametrize(("more", "size"), [(0, None), (1, MOST_KEPT_BYTES + 1)])
async def test_of_a_long_message_the_beginning_is_kept_and_how_long_it_was(platform, more, size):
    await platform.bury("carillon.shop.events", "no JSON", b"x" * (MOST_KEPT_BYTES + more), {})

    (letter,) = await platform.history.dead_letters()

    assert (len(letter["body"]), letter["size"]) == (MOST_KEPT_BYTES, size)


async def test_a_message_that_was_cut_is_redelivered_with_a_body_only_and_stays(platform):
    await platform.bury("carillon.shop.events", "no JSON", b"x" * (MOST_KEPT_BYTES + 1), {})
    (letter,) = await platform.history.dead_letters()

    with pytest.raises(InvalidArgumentsError, match="of 1,048,577 bytes are kept; give a whole body"):
        await platform.ledger.dead_letters.redeliver(letter["id"], platform.transport, ADA)

    assert len(await platform.history.dead_letters()) == 1


async def test_unreadable_messages_are_forgotten_when_ended_runs_are(platform):
    for reason in ("old", "new"):
        await platform.bury("carillon.shop.events", reason, b"{", {})
    await platform.ledger.pool.execute(
        "update carillon.dead_letters set received_at = now() - interval '8 days' where reason = 'old'"
    )

    await platform.ledger.forget(timedelta(days=7))

    assert [letter["reason"] for letter in await platform.history.dead_letters()] == ["new"]
