"""Headers cannot be forged, and a delivery's message is always the same."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifications.bodies import as_subject, is_mail_safe
from notifications.errors import UnsafeHeaderError
from notifications.letters import Attachment, Letter, checked_address, checked_header, compose

DELIVERY = UUID("018f0000-0000-7000-8000-000000000001")
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def composed(letter: Letter) -> bytes:
    return compose(
        letter, sender="carillon@example.org", recipients=["ann@example.org"], delivery=DELIVERY, written=NOON
    ).as_bytes()


@pytest.mark.parametrize("subject", ["a\r\nBcc: c@d.org", "a\nb", "a\rb", "a\x00b", "a\u2028b", "", "   ", "x" * 201])
def test_a_subject_that_would_break_its_line_is_refused(subject: str) -> None:
    with pytest.raises(UnsafeHeaderError):
        checked_header(subject)


@pytest.mark.parametrize(
    "address",
    [
        "a@b.org\r\nBcc: c@d.org",
        "a@b.org\nc@d.org",
        "a@b.org, c@d.org",
        "a@b.org;c@d.org",
        "Ann <a@b.org>",
        "a b@c.org",
        "nobody",
        "@b.org",
        "a@",
        "",
        "a" * 250 + "@b.org",
    ],
)
def test_what_is_not_one_plain_address_is_refused(address: str) -> None:
    with pytest.raises(UnsafeHeaderError):
        checked_address(address)


@pytest.mark.parametrize("address", ["ann@example.org", "ann+ops@sub.example.org", "operator@localhost"])
def test_a_plain_address_is_taken(address: str) -> None:
    assert checked_address(address) == address


@given(st.text())
def test_any_title_becomes_a_subject_that_fits_one_line(title: str) -> None:
    assert checked_header(as_subject(title))


def test_an_attachment_cannot_forge_a_header_by_its_name() -> None:
    letter = Letter("s", "t", attachments=(Attachment("a.pdf\r\nBcc: c@d.org", "application/pdf", b"x"),))

    with pytest.raises(UnsafeHeaderError):
        composed(letter)


def test_the_same_delivery_has_the_same_message_id_and_date() -> None:
    first, second = composed(Letter("Report", "text")), composed(Letter("Report", "text"))

    assert b"Message-ID: <018f0000-0000-7000-8000-000000000001@example.org>" in first
    assert b"Date: Tue, 24 Nov 2026 12:00:00 +0000" in first
    assert first == second


@pytest.mark.parametrize(
    "page",
    [
        "<p>hello<script>1</script>",
        "<svg></svg>",
        '<img src="data:image/png;base64,AA==">',
        '<p onclick="x()">',
        "<p>" + "x" * 100_001,
    ],
)
def test_a_page_that_mail_programs_would_break_is_not_used_as_the_body(page: str) -> None:
    assert not is_mail_safe(page)


def test_a_plain_page_is_used_as_the_body() -> None:
    assert is_mail_safe(
        '<html><body style="margin:0"><h1>Operations</h1><table><tr><td>1</td></tr></table></body></html>'
    )
