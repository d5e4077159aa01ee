"""Webhooks go to public addresses only, whatever the URL looks like."""

from __future__ import annotations

import pytest

from oneton.domain.errors import AddressError
from oneton.sending.address import LONGEST, Addresses, look_up

pytestmark = pytest.mark.anyio

PUBLIC = ("93.184.215.14", "8.8.8.8", "2606:4700::6810:84e5", "64:ff9b::808:808")
NEAR = (
    "127.0.0.1",
    "127.8.9.1",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.254",
    "192.168.1.1",
    "100.64.0.1",
    "100.127.255.254",
    "::1",
    "fc00::1",
    "fd12:3456::1",
    "::ffff:127.0.0.1",
    "::ffff:10.1.2.3",
    "64:ff9b::a00:1",
    "2002:7f00:1::",
    "2002:a00:1::1",
)
NEVER = (
    "0.0.0.0",
    "0.1.2.3",
    "169.254.0.1",
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "100.100.100.200",
    "192.0.0.192",
    "fd00:ec2::254",
    "192.0.2.1",
    "198.51.100.1",
    "203.0.113.9",
    "198.18.0.1",
    "224.0.0.1",
    "239.1.2.3",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::127.0.0.1",
    "64:ff9b:1::1",
    "100::1",
    "2001:db8::1",
    "2001::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "no address",
)


def at(*addresses: str, private: bool = False) -> Addresses:
    async def lookup(host: str, port: int) -> list[str]:
        return list(addresses)

    return Addresses(private=private, lookup=lookup)


@pytest.mark.parametrize("address", PUBLIC)
@pytest.mark.parametrize("private", [False, True])
async def test_a_public_address_is_good(address: str, private: bool) -> None:
    rules = at(address, private=private)
    await rules.check("https://hooks.example/h")
    assert await rules.find(rules.read("https://hooks.example/h")) == [address]


@pytest.mark.parametrize("address", NEAR)
async def test_a_private_address_is_good_only_when_allowed(address: str) -> None:
    with pytest.raises(AddressError, match=r"hooks\.example is at"):
        await at(address).check("https://hooks.example/h")
    await at(address, private=True).check("http://hooks.example/h")


@pytest.mark.parametrize("address", NEVER)
@pytest.mark.parametrize("private", [False, True])
async def test_other_addresses_are_never_good(address: str, private: bool) -> None:
    with pytest.raises(AddressError):
        await at(address, private=private).check("https://hooks.example/h")


async def test_one_bad_address_of_several_spoils_all() -> None:
    with pytest.raises(AddressError):
        await at("93.184.215.14", "10.0.0.1").check("https://hooks.example/h")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "127.0.0.1",
        "127.1",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "2130706433",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "169.254.169.254",
        "0xa9fea9fe",
        "[fe80::1]",
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020\u30020\u30021",
    ],
)
async def test_this_machine_is_refused_however_it_is_spelt(host: str) -> None:
    with pytest.raises(AddressError):
        await Addresses().check(f"https://{host}:8443/h")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example/h",
        "//hooks.example/h",
        "https:",
        "https:///h",
        "https://:443/h",
        "https://hooks.example:0/",
        "https://hooks.example:99999/",
        "https://hooks.example:x/",
        "http://hooks.example/h",
        "ftp://hooks.example/h",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://user:secret@hooks.example/h",
        "https://user@hooks.example/h",
        "https://hooks.example/\n",
        "https://hooks.example/\x00",
        "https://" + "a" * LONGEST,
        "https://[::1",
        "https://xn--/",
        "https://" + "a" * 70 + ".example/",
        "https://hooks..example/",
        "https://10.0.0.1\\@hooks.example/",
    ],
)
async def test_what_is_no_https_url_is_refused(url: str) -> None:
    with pytest.raises(AddressError):
        await at().check(url)


async def test_plain_http_goes_with_private_addresses() -> None:
    await at("10.0.0.1", private=True).check("http://receiver.internal:8080/h")
    with pytest.raises(AddressError, match="must begin with https://"):
        await at("8.8.8.8").check("http://hooks.example/h")


async def test_a_name_that_has_no_address_is_refused() -> None:
    with pytest.raises(AddressError, match=r"nowhere\.invalid cannot be resolved"):
        await Addresses().check("https://nowhere.invalid/h")


async def test_the_resolver_gives_each_address_once() -> None:
    found = await look_up("127.0.0.1", 443)
    assert found == ["127.0.0.1"]


async def test_a_name_that_changes_its_mind_is_looked_at_each_time() -> None:
    answers = [["8.8.8.8"], ["127.0.0.1"]]

    async def lookup(host: str, port: int) -> list[str]:
        return answers.pop(0)

    rules = Addresses(lookup=lookup)
    await rules.check("https://rebinding.example/h")
    with pytest.raises(AddressError):
        await rules.find(rules.read("https://rebinding.example/h"))
