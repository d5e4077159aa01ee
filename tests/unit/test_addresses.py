"""Whose call it is: an address behind proxies, and the networks that a key may be used from."""

from __future__ import annotations

import pytest

from oneton.domain.addresses import caller_of, may_call_from, read_network, read_networks

PROXIES = "10.0.0.0/8, ::1, 2001:db8:1::/48"


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.9", (), "203.0.113.9"),
        # From whoever is no trusted proxy the header counts for nothing.
        ("203.0.113.9", ("198.51.100.1",), "203.0.113.9"),
        ("10.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        # What the caller wrote into it stands to the left of what the proxy added.
        ("10.0.0.1", ("1.2.3.4, 198.51.100.1",), "198.51.100.1"),
        ("10.0.0.1", ("1.2.3.4", "198.51.100.1"), "198.51.100.1"),
        ("10.0.0.1", ("198.51.100.1, 10.9.9.9",), "198.51.100.1"),
        ("10.0.0.1", ("10.0.0.7, 10.9.9.9",), "10.0.0.7"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("::1", ("[2001:db8::7]:4711",), "2001:db8::7"),
        ("::ffff:10.0.0.1", ("198.51.100.1:80",), "198.51.100.1"),
        ("2001:db8:1::5", ("2001:db8::9",), "2001:db8::9"),
        ("10.0.0.1", ("198.51.100.1, unknown",), None),
        ("10.0.0.1", ("",), None),
        (None, ("198.51.100.1",), None),
    ],
)
def test_the_caller_is_the_last_address_that_no_trusted_proxy_vouches_beyond(
    peer: str | None, forwarded: tuple[str, ...], expected: str | None
) -> None:
    assert caller_of(peer, forwarded, read_networks(PROXIES)) == expected


def test_nobody_is_believed_by_default() -> None:
    assert caller_of("127.0.0.1", ("198.51.100.1",), read_networks("")) == "127.0.0.1"


@pytest.mark.parametrize(
    ("address", "allowed", "may"),
    [
        ("203.0.113.9", (), True),
        (None, (), True),
        (None, ("0.0.0.0/0",), False),
        ("203.0.113.9", ("203.0.113.9/32",), True),
        ("203.0.113.10", ("203.0.113.9/32",), False),
        ("203.0.113.10", ("10.0.0.0/8", "203.0.113.0/24"), True),
        ("2001:db8::1", ("203.0.113.0/24", "2001:db8::/32"), True),
        ("2001:db8::1", ("0.0.0.0/0",), False),
        ("::ffff:203.0.113.9", ("203.0.113.9/32",), True),
    ],
)
def test_a_key_may_be_used_from_its_networks_only(
    address: str | None, allowed: tuple[str, ...], may: bool
) -> None:
    assert may_call_from(address, allowed) is may


@pytest.mark.parametrize("text", ["10.0.0.1/8", "300.1.1.1", "example.org", "", "10.0.0.0/33"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        read_network(text)
