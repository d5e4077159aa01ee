"""Where webhooks may go: to the world, and to nothing that only we can reach."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from oneton.domain.errors import AddressError

if TYPE_CHECKING:
    import httpx

LONGEST = 2048
LOOKUPS_AT_ONCE = 32

Lookup = Callable[[str, int], Awaitable[list[str]]]

_WORLD6 = IPv6Network("2000::/3")
_TRANSLATED = (IPv6Network("64:ff9b::/96"),)
"""An IPv4 address stands in the last 32 bits. Source: RFC 6052."""
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "192.0.0.192")
)
"""Where clouds give a machine its credentials."""


class Addresses:
    """What a webhook's URL may be, and which addresses its host has."""

    def __init__(self, *, private: bool = False, lookup: Lookup | None = None) -> None:
        """Keep the rules.

        Args:
            private: private and loopback addresses will do, and so will plain HTTP; link-local,
                multicast and reserved ones never do.
            lookup: the addresses of a host; None asks the system's resolver.
        """
        self._private = private
        # Threads of our own, for a resolver that does not answer holds one up for long.
        limiter = anyio.CapacityLimiter(LOOKUPS_AT_ONCE)
        self._lookup = lookup or partial(look_up, limiter=limiter)

    def read(self, url: str) -> httpx.URL:
        """Check what can be seen of a URL without asking anybody.

        Raises:
            AddressError: it is none that we send to.
        """
        import httpx  # noqa: PLC0415 - a fortieth of a second that a start need not wait for

        if len(url) > LONGEST:
            raise AddressError(f"the URL is longer than {LONGEST} characters")
        try:
            read = httpx.URL(url)
            host = read.host  # IDNA is decoded only now.
        except (httpx.InvalidURL, ValueError, TypeError) as error:
            raise AddressError("this is no URL") from error
        schemes = ("https", "http") if self._private else ("https",)
        if read.scheme not in schemes:
            raise AddressError(f"the URL must begin with {' or '.join(schemes)}://")
        if not host or read.port == 0:
            raise AddressError("the URL names no host")
        if read.userinfo:
            raise AddressError("the URL must not hold a user or password")
        return read

    async def find(self, url: httpx.URL) -> list[str]:
        """The addresses that a connection may go to.

        Raises:
            AddressError: one of the host's addresses is out of bounds; then none is good.
            OSError: the host has no address.
        """
        port = url.port or (443 if url.scheme == "https" else 80)
        found = await self._lookup(host_of(url), port)
        if not found:
            raise OSError("the host has no address")
        for address in found:
            if not self._may_go_to(address):
                raise AddressError(f"{url.host} is at {address}, where no webhook may go")
        return found

    async def check(self, url: str) -> None:
        """Check a URL as at a delivery, without connecting.

        Raises:
            AddressError: nothing would be sent there.
        """
        read = self.read(url)
        try:
            await self.find(read)
        except (OSError, UnicodeError) as error:
            raise AddressError(f"{read.host} cannot be resolved") from error

    def _may_go_to(self, text: str) -> bool:
        address = _plain(text)
        if address is None:
            return False
        if _is_public(address):
            return True
        return self._private and _is_near(address)


def host_of(url: httpx.URL) -> str:
    """The host as DNS and TLS know it: IDNA, without brackets and last dot."""
    return url.raw_host.decode("ascii").strip("[]").rstrip(".")


async def look_up(
    host: str, port: int, *, limiter: anyio.CapacityLimiter | None = None
) -> list[str]:
    """Ask the system's resolver."""
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await anyio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=limiter)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def _plain(text: str) -> IPv4Address | IPv6Address | None:
    """The address itself, taken out of the IPv6 address that stands for an IPv4 one."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and any(address in network for network in _TRANSLATED):
        inner = IPv4Address(int(address) & 0xFFFF_FFFF)
    return inner or address


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _WORLD6:
        return False
    refused = address.is_multicast or address.is_reserved or address in _METADATA
    return address.is_global and not refused


def _is_near(address: IPv4Address | IPv6Address) -> bool:
    """Whether it is of a private network, a carrier's (RFC 6598), or this machine."""
    if address in _METADATA or address.is_link_local or address.is_multicast:
        return False
    return address.is_loopback or any(
        address in network for network in _NEAR if network.version == address.version
    )


_NEAR = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
