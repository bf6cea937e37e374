"""Keys: what a caller shows, and what is kept of it."""

from __future__ import annotations

import hmac
import os
import re
import secrets
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from carillon.errors import ConfigurationError

#: What a key looks like, so that secret scanners and people recognise one.
SHAPE = re.compile(r"^carillon_[A-Za-z0-9_-]{32,200}$")
#: The name of the key in the key file.
LOCAL = "local"
#: What a key may be named (the table says the same).
NAME = "^[a-z][a-z0-9_-]{0,62}$"
_MOST_FILE_BYTES = 4096


class Key(NamedTuple):
    """A key as it is kept: by name, with the SHA-256 of its secret. The secrets are random, so they need no salt."""

    name: str
    digest: bytes


def new_secret() -> str:
    """A key of 256 random bits."""
    return f"carillon_{secrets.token_urlsafe(32)}"


def digest_of(secret: str) -> bytes:
    """What is kept of a key."""
    return sha256(secret.encode()).digest()


def owner_of(secret: str, keys: Sequence[Key]) -> str | None:
    """The name of the key that this is, or None. It takes as long for a wrong key as for a right one."""
    digest, found = digest_of(secret), None
    for key in keys:
        if hmac.compare_digest(digest, key.digest):
            found = key.name
    return found


def secret_in(file: Path) -> str:
    """The key in a file, which is made with a new key if it does not exist; raises `ConfigurationError`."""
    secret = new_secret()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return _existing(file)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(f"{secret}\n")
    except OSError as error:
        message = f"the key file {file} cannot be used ({error.strerror}); set GATEWAY_KEY_FILE to a file of your own"
        raise ConfigurationError(message) from error
    return secret


def _existing(file: Path) -> str:
    if file.stat().st_mode & 0o077:
        message = f"the key file {file} can be read by others; run `chmod 600 {file}`"
        raise ConfigurationError(message)
    with file.open(encoding="utf-8", errors="replace") as opened:
        secret = opened.read(_MOST_FILE_BYTES).strip()
    if not SHAPE.match(secret):
        message = f"the key file {file} does not hold a key (carillon_...); delete it, and a new one is made"
        raise ConfigurationError(message)
    return secret
