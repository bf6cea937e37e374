"""The bytes between a tool and the storage: zstd on the way, both sides hashed, memory constant at any size."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import obstore
import zstandard

from backup.errors import DamagedBackupError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import IO

    from obstore.store import ObjectStore
    from typing_extensions import Buffer

    from backup.child import Child

#: How much is read at a time, in bytes.
PIECE = 1024 * 1024
#: Object stores take at most 10,000 parts; the smallest part they all accept is 5 MiB.
PARTS, SMALLEST_PART = 9_000, 8 * 1024 * 1024
#: Parts on their way to the storage at once; memory is this many parts.
PARTS_AT_ONCE = 2


@dataclass
class Tally:
    """Counts and hashes what passes."""

    size: int = 0
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, piece: Buffer) -> None:
        """Take note of one more piece."""
        self._hash.update(piece)
        self.size += memoryview(piece).nbytes

    @property
    def sha256(self) -> str:
        """The hash of everything so far, in hexadecimal."""
        return self._hash.hexdigest()


@dataclass(frozen=True)
class Stored:
    """What was put into the storage: its size and SHA-256, and those of the dump inside."""

    stored_bytes: int
    sha256: str
    plain_bytes: int
    plain_sha256: str


def store_output(child: Child, storage: ObjectStore, key: str, *, level: int, expected_bytes: int) -> Stored:
    """Compress what a tool writes into one object, which appears under its key only if the tool ended well.

    Blocks: run it in a thread. `expected_bytes` sizes the parts, so that no dump has too many.
    """
    plain, stored = Tally(), Tally()
    obstore.put(
        storage,
        key,
        _compressed(child, plain, stored, level),
        chunk_size=max(SMALLEST_PART, expected_bytes // PARTS),
        max_concurrency=PARTS_AT_ONCE,
    )
    return Stored(stored.size, stored.sha256, plain.size, plain.sha256)


def _compressed(child: Child, plain: Tally, stored: Tally, level: int) -> Iterator[bytes]:
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True).compressobj()
    while piece := child.output.read(PIECE):
        plain.add(piece)
        if packed := compressor.compress(piece):
            stored.add(packed)
            yield packed
    # Raised into the upload, which is then aborted: nothing is ever seen under the key of a broken dump.
    child.require_success()
    packed = compressor.flush()
    stored.add(packed)
    yield packed


def feed_stored(child: Child, storage: ObjectStore, key: str, *, sha256: str, tolerated: str | None = None) -> None:
    """Give a tool what was stored, decompressed, and require that it was whole and that the tool liked it.

    Blocks: run it in a thread. Raises DamagedBackupError where the bytes are not those of `sha256`, whatever
    the tool made of them; ToolFailedError where the tool failed on sound bytes.
    """
    tally = Tally()
    try:
        pieces = _tallied(obstore.get(storage, key).stream(min_chunk_size=PIECE), tally)
    except FileNotFoundError as error:
        message = f"{key} is no longer in the storage"
        raise DamagedBackupError(message) from error
    complaint = _pour(pieces, child)
    # What the tool did not want is read all the same: only the whole hash tells damage from another failure.
    for _ in pieces:
        pass
    if tally.sha256 != sha256:
        message = f"{key} is damaged: {tally.size} bytes with SHA-256 {tally.sha256} came back instead of {sha256}"
        raise DamagedBackupError(message) from complaint
    child.require_success(tolerated)


def _pour(pieces: Iterator[Buffer], child: Child) -> Exception | None:
    """Decompress into the tool until either side is at its end; what went wrong is judged by the caller."""
    try:
        with (
            child.input as sink,
            zstandard.ZstdDecompressor().stream_reader(cast("IO[bytes]", _Pieces(pieces))) as plain,
        ):
            _copy(plain, sink)
    except (BrokenPipeError, zstandard.ZstdError) as error:
        return error
    return None


def _copy(source: zstandard.ZstdDecompressionReader, sink: IO[bytes]) -> None:
    while piece := source.read(PIECE):
        sink.write(piece)


def _tallied(pieces: Iterable[Buffer], tally: Tally) -> Iterator[Buffer]:
    for piece in pieces:
        tally.add(piece)
        yield piece


@dataclass
class _Pieces(io.RawIOBase):
    """An iterator of buffers, read like a file, because zstandard bounds its output only for what it reads itself."""

    pieces: Iterator[Buffer]
    left: memoryview = field(default_factory=lambda: memoryview(b""))

    def read(self, size: int = -1) -> bytes:
        if not self.left:
            self.left = memoryview(next(self.pieces, b""))
        taken = bytes(self.left if size < 0 else self.left[:size])
        self.left = self.left[len(taken) :]
        return taken
