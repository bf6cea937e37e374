"""Reads the files of a report from storage, and proves that they are the ones that were rendered."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

from notifications.errors import DamagedArtefactError
from notifications.letters import Attachment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from obstore.store import ObjectStore

    from carillon.contracts import Artefact

#: Keys of files that may be mailed begin with the word of the service that rendered them.
PREFIX = "reports/"


class Shelf(Protocol):
    """Where artefacts are read from."""

    async def read(self, artefact: Artefact) -> Attachment:
        """Return the file, checked; a missing or different one raises DamagedArtefactError."""


class StoredShelf:
    """The shelf in the platform's storage."""

    def __init__(self, storage: ObjectStore) -> None:
        self._storage = storage

    async def read(self, artefact: Artefact) -> Attachment:
        """Return the file, checked against the size and hash its event names."""
        if not artefact.key.startswith(PREFIX) or ".." in artefact.key.split("/"):
            message = f"{artefact.filename} lies at {artefact.key!r}, where no report is kept"
            raise DamagedArtefactError(message)
        try:
            found = await self._storage.get_async(artefact.key)
        except FileNotFoundError as error:
            message = f"{artefact.filename} is no longer in storage at {artefact.key}; render the report again"
            raise DamagedArtefactError(message) from error
        size = found.meta["size"]
        if size != artefact.size_bytes:
            message = f"{artefact.filename} has {size} bytes in storage, {artefact.size_bytes} were rendered"
            raise DamagedArtefactError(message)
        content = bytes(await found.bytes_async())
        return Attachment(artefact.filename, artefact.media_type, checked(artefact, content))


def checked(artefact: Artefact, content: bytes) -> bytes:
    """Return the content if it has the artefact's hash."""
    if hashlib.sha256(content).hexdigest() != artefact.sha256.lower():
        message = f"{artefact.filename} is not the file that was rendered: its SHA-256 differs; render the report again"
        raise DamagedArtefactError(message)
    return content


def fitting(artefacts: Iterable[Artefact], limit: int) -> tuple[list[Artefact], list[Artefact]]:
    """Split artefacts into those that fit into `limit` bytes together, in their order, and the rest."""
    taken: list[Artefact] = []
    left: list[Artefact] = []
    room = limit
    for artefact in artefacts:
        if artefact.size_bytes <= room:
            room -= artefact.size_bytes
            taken.append(artefact)
        else:
            left.append(artefact)
    return taken, left
