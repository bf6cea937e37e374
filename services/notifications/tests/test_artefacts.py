"""Files are mailed only if they are the ones that were rendered."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from obstore.store import MemoryStore

from carillon.contracts import Artefact, ReportRendered
from notifications.artefacts import StoredShelf, fitting
from notifications.bodies import Clerk
from notifications.errors import DamagedArtefactError
from notifications.letters import compose

PAGE = b"<html><body><h1>Operations</h1></body></html>"
PNG = b"\x89PNG\r\n\x1a\n drawn"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PDF = b"%PDF-1.7 rendered"


@pytest.fixture
def storage() -> MemoryStore:
    storage = MemoryStore()
    storage.put("reports/operations/1.html", PAGE)
    storage.put("reports/operations/1.pdf", PDF)
    return storage


def artefact(kind: str, content: bytes, **changes: object) -> Artefact:
    fields = {
        "format": kind,
        "filename": f"operations.{kind}",
        "media_type": {"html": "text/html; charset=utf-8", "pdf": "application/pdf"}[kind],
        "key": f"reports/operations/1.{kind}",
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return Artefact.model_validate(fields | changes)


def report(*artefacts: Artefact) -> ReportRendered:
    return ReportRendered(
        report="operations",
        title="Operations\r\nBcc: eve@example.org",
        summary="12 runs <b>ended</b> well.\n\nNone failed.",
        as_of=datetime(2026, 11, 24, 12, tzinfo=UTC),
        artefacts=list(artefacts),
    )


async def test_a_stored_file_is_read_with_its_name_and_type(storage: MemoryStore) -> None:
    file = await StoredShelf(storage).read(artefact("pdf", PDF))

    assert (file.filename, file.media_type, file.content) == ("operations.pdf", "application/pdf", PDF)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sha256": "0" * 64}, "SHA-256 differs"),
        ({"size_bytes": 3}, "3 were rendered"),
        ({"key": "reports/operations/2.pdf"}, "no longer in storage"),
        ({"key": "backup/platform/1.dump.zst"}, "no report is kept"),
        ({"key": "reports/../backup/platform/1.dump.zst"}, "no report is kept"),
    ],
)
async def test_a_file_that_is_not_the_rendered_one_is_not_mailed(
    storage: MemoryStore, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(DamagedArtefactError, match=reason):
        await StoredShelf(storage).read(artefact("pdf", PDF, **changes))


async def test_a_mail_safe_page_becomes_the_body_and_every_file_is_attached(storage: MemoryStore) -> None:
    letter = await Clerk(StoredShelf(storage), attachment_limit=1000).report_letter(
        report(artefact("html", PAGE), artefact("pdf", PDF))
    )

    assert letter.html == PAGE.decode()
    assert letter.subject == "Operations Bcc: eve@example.org"
    assert [file.filename for file in letter.attachments] == ["operations.html", "operations.pdf"]
    assert "As of 2026-11-24 12:00 UTC." in letter.text


async def test_an_image_inside_the_page_is_shown_from_beside_it(storage: MemoryStore) -> None:
    page = f'<html><body><img src="data:image/png;base64,{base64.b64encode(PNG).decode()}" alt="Runs"></body></html>'
    storage.put("reports/operations/1.html", page.encode())

    letter = await Clerk(StoredShelf(storage), attachment_limit=1000).report_letter(
        report(artefact("html", page.encode()))
    )
    message = compose(letter, sender="c@example.org", recipients=["a@example.org"], delivery=uuid4(), written=NOON)

    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
        "text/html",
    ]
    (image,) = [part for part in message.walk() if part.get_content_type() == "image/png"]
    html = message.get_body(("html",))
    assert html is not None
    assert f'src="cid:{image["Content-ID"].strip("<>")}"' in html.get_content()
    assert image.get_content() == PNG


async def test_an_image_that_is_not_base64_keeps_the_page_out_of_the_body(storage: MemoryStore) -> None:
    page = b'<html><body><img src="data:image/png;base64,AAA"></body></html>'
    storage.put("reports/operations/1.html", page)

    letter = await Clerk(StoredShelf(storage), attachment_limit=1000).report_letter(report(artefact("html", page)))

    assert letter.html is not None
    assert "data:" not in letter.html


async def test_a_page_that_mail_would_break_is_attached_and_the_body_is_the_summary(storage: MemoryStore) -> None:
    page = b"<html><body><svg></svg></body></html>"
    storage.put("reports/operations/1.html", page)

    letter = await Clerk(StoredShelf(storage), attachment_limit=1000).report_letter(report(artefact("html", page)))

    assert letter.html is not None
    assert "<svg" not in letter.html
    assert "12 runs &lt;b&gt;ended&lt;/b&gt; well." in letter.html
    assert "operations.html" in letter.html


async def test_files_beyond_the_limit_are_named_and_not_attached(storage: MemoryStore) -> None:
    letter = await Clerk(StoredShelf(storage), attachment_limit=len(PAGE)).report_letter(
        report(artefact("html", PAGE), artefact("pdf", PDF))
    )

    assert [file.filename for file in letter.attachments] == ["operations.html"]
    assert "Too large to attach, kept at reports/operations/1.pdf: operations.pdf" in letter.text


def test_a_large_file_does_not_keep_later_small_ones_out() -> None:
    large, small = artefact("pdf", bytes(100)), artefact("html", bytes(10))

    assert fitting([large, small], 50) == ([small], [large])
