"""The only way out over HTTP: resolves once, refuses addresses inside, connects to the address it checked."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Protocol

import httpx2

from carillon.callbacks import origin_of
from notifications.errors import ForbiddenAddressError, WebhookRefusedError, WebhookUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Global unicast, of which the ranges below embed or stand for other addresses.
_V6_UNICAST = IPv6Network("2000::/3")
_V6_SPECIAL = tuple(IPv6Network(net) for net in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16"))
#: `is_global` lets 192.0.0.192 and its like through on some Python versions.
_V4_SPECIAL = ip_network("192.0.0.0/24")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is plain global unicast: nothing private, embedded, tunnelled, reserved or multicast."""
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, IPv4Address):
        return address not in _V4_SPECIAL
    return address in _V6_UNICAST and not any(address in special for special in _V6_SPECIAL)


class Resolver(Protocol):
    """Turns a host name into addresses."""

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return at least one address, or raise OSError."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver, which also reads addresses written as 0x7f000001 or 2130706433."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Sends a request to an address that was checked, keeping Host header and TLS name.

    Connections are not kept: one to an address would else be shared by two names with different certificates.
    """

    def __init__(self, *, allow_private: bool, resolver: Resolver = resolve) -> None:
        self._allow_private = allow_private
        self._resolver = resolver
        self._wire = httpx2.AsyncHTTPTransport(
            trust_env=False, limits=httpx2.Limits(max_connections=100, max_keepalive_connections=0)
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Connect to the first checked address that answers."""
        last: httpx2.ConnectError | None = None
        for address in await self._checked(request.url):
            try:
                return await self._wire.handle_async_request(_pinned(request, address))
            except httpx2.ConnectError as error:
                last = error
        message = f"{request.url.host} cannot be reached: {last}"
        raise WebhookUnavailableError(message) from last

    async def _checked(self, url: httpx2.URL) -> list[str]:
        if url.scheme not in {"http", "https"} or url.userinfo or not url.host:
            message = f"a webhook goes to http:// or https:// without user and password, not to {shown(url)}"
            raise WebhookRefusedError(message)
        try:
            found = await self._resolver(url.host, url.port or (443 if url.scheme == "https" else 80))
        except (OSError, UnicodeError) as error:
            message = f"the name {url.host} was not found: {error}"
            raise WebhookUnavailableError(message) from error
        addresses = [ip_address(text.partition("%")[0]) for text in found]
        forbidden = [address for address in addresses if not is_public(address)]
        if forbidden and not self._allow_private:
            message = (
                f"{url.host} leads to {forbidden[0]}, which is not a public address; "
                "set NOTIFICATIONS_WEBHOOK_ALLOW_PRIVATE=true if that is meant"
            )
            raise ForbiddenAddressError(message)
        return [str(address) for address in addresses]

    async def aclose(self) -> None:
        """Close what is open."""
        await self._wire.aclose()


def _pinned(request: httpx2.Request, address: str) -> httpx2.Request:
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )


def shown(url: httpx2.URL) -> str:
    """Return the URL as it may be logged: user, password, path, query and fragment can hold secrets."""
    rest = "/..." if url.raw_path != b"/" else "/"
    return f"{origin_of(str(url))}{rest}"
