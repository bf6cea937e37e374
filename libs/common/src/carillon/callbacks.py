"""Who is called back when a run has ended: which addresses are taken, and what of them may be seen."""

from __future__ import annotations

from urllib.parse import urlsplit

_PORT = r"6553[0-5]|655[0-2]\d|65[0-4]\d\d|6[0-4]\d{3}|[1-5]\d{4}|[1-9]\d{0,3}"
#: Names a host, and no user or password, which would stand in logs of others.
CALLBACK_URL = rf"^https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:({_PORT}))?([/?][!-~]*)?$"
MOST_URL = 2_000
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
