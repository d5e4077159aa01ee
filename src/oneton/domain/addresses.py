"""From where somebody calls: addresses, networks, and proxies that are believed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def read_network(text: str) -> Network:
    """An address, or a network such as 10.0.0.0/8 or 2001:db8::/32.

    Raises:
        ValueError: it is neither, or has bits beside the network's.
    """
    try:
        return ip_network(text.strip())
    except ValueError as error:
        raise ValueError(f"{text.strip()!r} is no address and no network: {error}") from error


def read_networks(text: str) -> tuple[Network, ...]:
    """Several, with commas between them; ValueError as of one."""
    return tuple(read_network(each) for each in text.split(",") if each.strip())


def read_address(text: str) -> Address | None:
    """An address as a proxy writes it, with or without a port; None when it is none.

    One of IPv4 that a socket of both kinds has wrapped is unwrapped.
    """
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Whether an address lies in any of these networks."""
    return any(address.version == each.version and address in each for each in networks)


def may_call_from(address: str | None, allowed: tuple[str, ...]) -> bool:
    """Whether a caller's address is among those that a key may be used from; none is all."""
    if not allowed:
        return True
    found = None if address is None else read_address(address)
    return found is not None and is_within(found, _networks(allowed))


@lru_cache(maxsize=10_000)
def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(read_network(each) for each in texts)


def caller_of(
    peer: str | None, forwarded: Iterable[str], trusted: tuple[Network, ...]
) -> str | None:
    """The caller's address, by who connected and what proxies say.

    The last proxy's word comes last. Each is believed only as far as it is trusted itself, so what
    a caller writes into the header counts for nothing.

    Args:
        peer: who holds the connection.
        forwarded: the X-Forwarded-For headers, in order.

    Returns:
        None when that is no address, or a trusted proxy's word is none.
    """
    address = None if peer is None else read_address(peer)
    said = [each for header in forwarded for each in header.split(",")]
    while address is not None and said and is_within(address, trusted):
        address = read_address(said.pop())
    return None if address is None else str(address)
