"""A webhook reaches the address that was checked, with its host's certificate, and no other."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from oneton.sending.address import Addresses
from oneton.sending.http import Answer, Sender
from tests.fixtures.receivers import MakeReceiver, Receiver

pytestmark = pytest.mark.anyio

HOST = "hooks.example"


class Names:
    """A resolver of a test's own; real ones do not know names below `.example`."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, _port: int) -> list[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def make_sender(
    names: Names | None = None, *, private: bool = True, tls: ssl.SSLContext | None = None
) -> Sender:
    return Sender(Addresses(private=private, lookup=names), tls)


async def post(sender: Sender, url: str, timeout_s: float = 5) -> Answer:
    try:
        return await sender.post(url, b'{"a":1}', {"X-Own": "yes"}, timeout_s=timeout_s)
    finally:
        await sender.close()


async def test_the_body_and_the_headers_arrive_as_they_are(receiver: Receiver) -> None:
    assert await post(make_sender(), receiver.url + "?token=ü") == Answer(200)
    (call,) = receiver.calls
    assert (call.path, call.body) == ("/hook?token=%C3%BC", b'{"a":1}')
    assert call.headers == {
        "host": f"127.0.0.1:{receiver.port}",
        "connection": "close",
        "content-length": "7",
        "x-own": "yes",
    }


async def test_the_connection_goes_to_the_address_that_was_checked(receiver: Receiver) -> None:
    names = Names(["127.0.0.1"])
    assert await post(make_sender(names), f"http://{HOST}:{receiver.port}/") == Answer(200)
    assert names.asked == [HOST]
    assert receiver.calls[0].headers["host"] == f"{HOST}:{receiver.port}"


async def test_a_name_that_is_rebound_after_the_check_is_not_followed(receiver: Receiver) -> None:
    names = Names(["93.184.215.14"], ["127.0.0.1"])
    rules = Addresses(lookup=names)
    url = f"https://{HOST}:{receiver.port}/"
    await rules.check(url)
    answer = await post(Sender(rules), url)
    assert answer.refused
    assert answer.error == f"{HOST} is at 127.0.0.1, where no webhook may go"
    assert receiver.calls == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(
    make_receiver: MakeReceiver, receiver: Receiver, status: int
) -> None:
    inside = make_receiver()
    receiver.statuses, receiver.location = [status], inside.url
    assert await post(make_sender(), receiver.url) == Answer(status)
    assert (len(receiver.calls), inside.calls) == (1, [])


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:{port}/",
        "https://localhost:{port}/",
        "https://[::ffff:127.0.0.1]:{port}/",
        "http://127.0.0.1:{port}/",
    ],
)
async def test_private_addresses_are_refused_at_delivery(receiver: Receiver, url: str) -> None:
    answer = await post(make_sender(private=False), url.format(port=receiver.port))
    assert answer.refused
    assert receiver.calls == []


async def test_link_local_is_refused_even_where_private_is_allowed() -> None:
    answer = await post(make_sender(), "http://169.254.169.254/latest/meta-data/")
    assert answer.refused


async def test_the_next_address_is_tried_when_the_first_does_not_listen(
    make_receiver: MakeReceiver,
) -> None:
    receiver = make_receiver("127.0.0.2")
    names = Names(["127.0.0.1", "127.0.0.2"])
    assert await post(make_sender(names), f"http://{HOST}:{receiver.port}/") == Answer(200)
    assert len(receiver.calls) == 1


async def test_no_proxy_no_cookie_and_no_kept_connection(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    sender = make_sender()
    for _ in range(2):
        answer = await sender.post(receiver.url, b"{}", {}, timeout_s=5)
        assert answer == Answer(200)
    await sender.close()
    assert all("cookie" not in call.headers for call in receiver.calls)


async def test_nobody_listening_is_no_answer() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answer = await post(make_sender(), f"http://127.0.0.1:{port}/")
    assert (answer.status, answer.refused) == (None, False)
    assert answer.error is not None
    assert answer.error.startswith("ConnectError")


async def test_a_name_without_address_is_no_answer_but_may_have_one_later() -> None:
    answer = await post(make_sender(), "http://nowhere.invalid/")
    assert (answer.status, answer.refused) == (None, False)
    assert answer.error is not None


async def test_a_silent_receiver_is_given_up_in_time(receiver: Receiver) -> None:
    receiver.silent.set()
    began = time.monotonic()
    assert await post(make_sender(), receiver.url, 0.3) == Answer(error="no answer in 0.3 s")
    assert time.monotonic() - began < 2


def raw_server(lines: list[bytes], every_s: float) -> Iterator[int]:
    """Serve one caller some bytes, slowly."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            caller, _ = listener.accept()
            with caller:
                caller.recv(65536)
                for line in lines:
                    caller.sendall(line)
                    time.sleep(every_s)

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    listener.close()
    thread.join()


async def test_a_dripping_receiver_is_given_up_in_time() -> None:
    for port in raw_server([b"HTTP/1.1 200 OK\r\n", *([b"X-A: b\r\n"] * 20)], 0.1):
        answer = await post(make_sender(), f"http://127.0.0.1:{port}/", 0.4)
        assert answer.error == "no answer in 0.4 s"


async def test_an_endless_answer_is_not_read() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n"
    for port in raw_server([head, b"x" * 1000], 0):
        assert await post(make_sender(), f"http://127.0.0.1:{port}/") == Answer(200)


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH_9.7\r\n", b"HTTP/1.1 abc\r\n\r\n"])
async def test_what_is_no_http_is_no_answer(said: bytes) -> None:
    for port in raw_server([said], 0):
        answer = await post(make_sender(), f"http://127.0.0.1:{port}/")
        assert (answer.status, answer.refused) == (None, False)
        assert answer.error is not None


class Authority:
    """Signs certificates for a test's receivers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("test authority", self.key, authority=True)

    def trust(self) -> ssl.SSLContext:
        pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        return ssl.create_default_context(cadata=pem)

    def serve(self, host: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        path = self.folder / f"{host}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + self._sign(host, key).public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _sign(
        self, name: str, key: ec.EllipticCurvePrivateKey, *, authority: bool = False
    ) -> x509.Certificate:
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )


async def test_tls_verifies_the_hosts_name_though_the_address_is_dialled(
    make_receiver: MakeReceiver, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    receiver = make_receiver(tls=authority.serve(HOST))
    sender = make_sender(Names(["127.0.0.1"]), tls=authority.trust())
    try:
        for host, good in ((HOST, True), ("other.example", False), ("127.0.0.1", False)):
            url = f"https://{host}:{receiver.port}/"
            answer = await sender.post(url, b"{}", {}, timeout_s=5)
            assert (answer.status == 200) is good, answer
            if not good:
                assert "CERTIFICATE_VERIFY_FAILED" in str(answer.error)
        assert len(receiver.calls) == 1
    finally:
        await sender.close()


async def test_a_certificate_of_nobody_known_is_no_answer(
    make_receiver: MakeReceiver, tmp_path: Path
) -> None:
    receiver = make_receiver(tls=Authority(tmp_path).serve(HOST))
    answer = await post(make_sender(Names(["127.0.0.1"])), f"https://{HOST}:{receiver.port}/")
    assert "CERTIFICATE_VERIFY_FAILED" in str(answer.error)
    assert receiver.calls == []
