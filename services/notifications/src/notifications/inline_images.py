"""Takes images that a page carries inside itself out of it, for mail programs show only those beside it (RFC 2392)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

EMBEDDED = re.compile(
    r"""(?P<quote>["'])data:image/(?P<kind>png|jpeg|gif);base64,(?P<content>[A-Za-z0-9+/=\s]+)(?P=quote)"""
)


@dataclass(frozen=True, slots=True)
class InlineImage:
    """One image beside a page; the page names it as `cid:` and this id."""

    id: str
    #: png, jpeg or gif.
    kind: str
    content: bytes


def taken_out(page: str) -> tuple[str, tuple[InlineImage, ...]]:
    """Return the page with `cid:` addresses, and the images these stand for, each once."""
    images: dict[str, InlineImage] = {}

    def address(found: re.Match[str]) -> str:
        try:
            content = base64.b64decode(found["content"])
        except binascii.Error:
            return found[0]
        name = f"{hashlib.sha256(content).hexdigest()[:32]}@carillon"
        images[name] = InlineImage(name, found["kind"], content)
        return f"{found['quote']}cid:{name}{found['quote']}"

    return EMBEDDED.sub(address, page), tuple(images.values())
