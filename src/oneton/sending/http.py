"""POST one webhook: to an address that was checked, and no further."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from functools import cached_property

import httpx
import msgspec

from oneton.domain.errors import AddressError
from oneton.sending.address import Addresses, host_of


class Answer(msgspec.Struct, frozen=True):
    """What became of one attempt.

    Attributes:
        status: that the receiver answered with; None when it did not.
        error: why there is no answer.
        refused: nothing was sent, for it may not go there.
    """

    status: int | None = None
    error: str | None = None
    refused: bool = False


class Sender:
    """Follows no redirect, uses no proxy, keeps no cookie and no connection.

    A kept connection would be of an address, not of a host, whose certificate is another.
    """

    def __init__(self, addresses: Addresses, tls: ssl.SSLContext | None = None) -> None:
        """Keep what a connection is made with.

        Args:
            tls: None trusts what certifi does, or the file that SSL_CERT_FILE names.
        """
        self._addresses = addresses
        self._tls = tls

    @cached_property
    def _transport(self) -> httpx.AsyncHTTPTransport:
        """Made at the first use, for the world's certificates take a while to read."""
        return httpx.AsyncHTTPTransport(
            verify=self._tls or httpx.create_ssl_context(),
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close what is open."""
        if "_transport" in self.__dict__:
            await self._transport.aclose()

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float
    ) -> Answer:
        """Send once; all of it, from the name's resolution to the answer's head, in `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._post(url, body, headers)
        except TimeoutError:
            return Answer(error=f"no answer in {timeout_s:g} s")
        except AddressError as error:
            return Answer(error=str(error), refused=True)
        except (httpx.TransportError, OSError, UnicodeError) as error:
            return Answer(error=f"{type(error).__name__}: {error}"[:300])

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        read = self._addresses.read(url)
        found = await self._addresses.find(read)
        for address in found[:-1]:
            try:
                return await self._post_to(address, read, body, headers)
            except httpx.ConnectError:
                continue
        return await self._post_to(found[-1], read, body, headers)

    async def _post_to(
        self, address: str, url: httpx.URL, body: bytes, headers: Mapping[str, str]
    ) -> Answer:
        """Connect to the address, and not to what the name means by then; TLS checks the name."""
        request = httpx.Request(
            "POST",
            url.copy_with(host=address, fragment=None),
            headers={**headers, "Host": url.netloc.decode("ascii"), "Connection": "close"},
            content=body,
            extensions={"sni_hostname": host_of(url)},
        )
        response = await self._transport.handle_async_request(request)
        try:
            return Answer(status=response.status_code)
        finally:
            await response.aclose()
