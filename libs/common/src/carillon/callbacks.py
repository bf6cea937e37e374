"""Who is called back when a run has ended: what of an address may be seen."""

from __future__ import annotations

from urllib.parse import urlsplit

_USUAL_PORTS = {"http": 80, "https": 443}


#: Shown in place of the origin of what is no URL.
NOWHERE = "nowhere"


def origin_of(url: str) -> str:
    """Scheme, host and unusual port of a URL (RFC 6454, 6.2): what may be shown, for the rest can be a secret.

    `nowhere` for what is no URL.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return NOWHERE
    if not host:
        return NOWHERE
    named = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{named}{'' if port in {None, _USUAL_PORTS.get(parts.scheme)} else f':{port}'}"
