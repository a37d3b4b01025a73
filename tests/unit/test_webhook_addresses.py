"""Where webhooks may go: every spelling of a forbidden address, names that change, and signatures."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from app.webhooks import addresses
from app.webhooks.addresses import Forbidden, check_address, check_name, check_url
from app.webhooks.addresses import parse_networks as networks
from app.webhooks.sending import Answered, send_once
from app.webhooks.sending import Receiver as Target
from app.webhooks.signing import key_of, new_secret, signature
from tests.support.receiver import Receiver, receiving

LOCAL = networks("127.0.0.0/8")
PUBLIC = ("93.184.215.14", "8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "2606:4700:4700::1111", "2a00::1")
FORBIDDEN = (
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255",
    "192.168.1.1", "169.254.169.254", "169.254.0.1", "100.64.0.1", "100.127.255.255", "192.0.0.1", "192.0.0.192",
    "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
    "64:ff9b::808:808", "64:ff9b:1::a00:1", "100::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1",
    "2001::1", "2001:0:7f00:1::", "2001:db8::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "3fff::1", "4000::1",
)  # fmt: skip


@pytest.mark.parametrize("address", FORBIDDEN)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(Forbidden, match="public addresses"):
        check_address(ipaddress.ip_address(address), ())


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_not(address: str) -> None:
    check_address(ipaddress.ip_address(address), ())


def test_the_operator_may_allow_networks_and_nothing_beside_them() -> None:
    allowed = networks("10.1.0.0/16, fd00::/8,127.0.0.1")
    for address in ("10.1.255.255", "fd12::1", "127.0.0.1", "::ffff:10.1.0.1"):
        check_address(ipaddress.ip_address(address), allowed)
    for address in ("10.2.0.0", "127.0.0.2", "fc00::1", "::1"):
        with pytest.raises(Forbidden):
            check_address(ipaddress.ip_address(address), allowed)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://127.0.0.1:8000/hook", "http://[::1]/", "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/", "http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/",
        "http://[fe80::1%25eth0]/", "http://[64:ff9b::7f00:1]/", "http://0/", "http://0.0.0.0/", "http://2130706433/",
        "http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/", "http://017700000001/", "http://127.1/",
        "http://127.0.0.1./", "http://2130706433./", "http://0x7f.0x0.0x0.0x1/", "http://1.2.3.4.5/",
        "http://user@example.com/", "http://user:password@example.com/", "http://example.com@127.0.0.1/",
        "http://@example.com/", "http://example.com#@127.0.0.1/", "http://example.com\\@127.0.0.1/",
        "http://127.0.0.1\\@example.com/", "http://example.com:0/", "http://example.com:99999/",
        "http://example.com:port/", "http://１２７.0.0.1/", "http://①②⑦.0.0.1/", "http://example.com/ 127",
        "http://example.com/\r\nHost: x", "http://example.com/\t", "http://exa\0mple.com/", "ftp://example.com/",
        "file:///etc/passwd", "gopher://example.com/", "//example.com/", "example.com", "", "http://", "http:///hook",
        "https:example.com", "unix:///run/docker.sock", "http://[::1", "http://" + "a" * 2_000 + ".com/",
    ],
)  # fmt: skip
def test_a_url_that_leads_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(Forbidden):
        check_url(url, ())


@pytest.mark.parametrize(
    "url",
    ["https://example.com/hook?key=a%20b", "http://example.com:8080", "https://1.1.1.1/", "https://[2606:4700::1]:444/x",
     "https://a1.example.com/@me", "https://xn--bcher-kva.example/"],
)  # fmt: skip
def test_a_url_of_a_receiver_is_not(url: str) -> None:
    check_url(url, ())


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def send(url: str, allowed: Any = LOCAL, timeout_s: float = 20.0) -> Answered:
    return send_once(Target(url, new_secret()), "msg_1", b"{}", allowed, timeout_s)


class Names:
    """A name server of our own: answers by name, one after the other, the last one for ever."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        name = host.rstrip(".").partition(".")[0]
        if name not in self.answers:
            raise socket.gaierror("unknown")
        answers = self.answers[name]
        return answers.pop(0) if len(answers) > 1 else answers[0]


def test_every_address_of_a_name_is_judged(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    names = Names(mixed=[["8.8.8.8", "127.0.0.1"]], metadata=[["169.254.169.254"]], v6=[["::ffff:10.0.0.1"]])
    monkeypatch.setattr(addresses, "look_up", names)
    for name in names.answers:
        url = f"http://{name}.example:{receiver.port}/"
        told = send(url, allowed=())
        assert told.status is None
        assert "public addresses" in str(told.error)
        with pytest.raises(Forbidden):
            check_name(check_url(url, ()), ())
    assert not receiver.received


def test_the_address_that_was_judged_is_the_one_that_is_connected_to(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    names = Names(rebinding=[["127.0.0.1"], ["10.0.0.1"]])
    monkeypatch.setattr(addresses, "look_up", names)
    url = f"http://rebinding.example:{receiver.port}/hook"
    assert send(url).is_delivered
    assert receiver.received[0].headers["host"] == f"rebinding.example:{receiver.port}"
    assert names.asked == ["rebinding.example"], "a name is asked once for a connection"
    assert "public addresses" in str(send(url).error), "and judged again for the next one"


def test_an_address_that_does_not_answer_is_followed_by_the_next(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    monkeypatch.setattr(addresses, "look_up", Names(two=[["127.0.0.2", "127.0.0.1"]]))
    assert send(f"http://two.example:{receiver.port}/").is_delivered


def test_a_name_that_resolves_to_nothing_or_too_much_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "look_up", Names(none=[[]], many=[[f"8.8.{i}.8" for i in range(100)]]))
    for name in ("none", "many", "unknown"):
        assert "ConnectError" in str(send(f"http://{name}.example/").error)
    check_name(check_url("http://unknown.example/", ()), ())


def test_localhost_by_name_is_refused_as_its_address_is() -> None:
    for name in ("localhost", "LOCALHOST"):
        assert "public addresses" in str(send(f"http://{name}:1/", allowed=()).error)
    told = send("http://localhost.:1/", allowed=())
    assert "public addresses" in str(told.error) or "has no address" in str(told.error)


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    with receiving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert send(receiver.url).is_delivered
        assert not proxy.received


@contextmanager
def answering(answer: Callable[[socket.socket, bytes], None]) -> Iterator[int]:
    """A server that does as `answer` says with each connection and the first that it hears; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, suppress(OSError):
                        answer(connection, connection.recv(65_536))

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@pytest.mark.parametrize("drip_s", [0.0, 0.3])
def test_an_answer_that_never_ends_is_left(drip_s: float) -> None:
    def endless(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
            time.sleep(drip_s)

    with answering(endless) as port:
        told = send(f"http://127.0.0.1:{port}/", timeout_s=20.0 if drip_s == 0 else 1.0)
    if drip_s:
        assert "No answer within 1 seconds" in str(told.error)
    else:
        assert told == Answered(200), "more than the limit is not read, and its status counts"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_garbage_for_an_answer_is_a_failure(scheme: str) -> None:
    with answering(lambda connection, _: connection.sendall(b"\x16\x03\x01 not HTTP \xff\xff\r\n\r\n")) as port:
        told = send(f"{scheme}://127.0.0.1:{port}/")
    assert told.status is None
    assert told.error


def test_tls_asks_for_the_name_of_the_url_not_for_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _socket, name, _context: asked.append(name)

    def greet(_: socket.socket, hello: bytes) -> None:
        incoming = ssl.MemoryBIO()
        incoming.write(hello)
        with suppress(ssl.SSLError):
            context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()

    monkeypatch.setattr(addresses, "look_up", Names(named=[["127.0.0.1"]]))
    with answering(greet) as port:
        assert send(f"https://named.example:{port}/").error
    assert asked == ["named.example"]


def test_a_signature_is_that_of_the_specifications_example() -> None:
    # The example of the Standard Webhooks specification and of its libraries' tests.
    body = b'{"test": 2432232314}'
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == expected


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA", "A" * 44, "whsec_" + "A" * 100, "whsec_" + "é" * 40])
def test_a_secret_that_is_none_is_refused_without_being_repeated(secret: str) -> None:
    with pytest.raises(ValueError, match="random bytes") as refused:
        key_of(secret)
    assert len(secret) < 10 or secret not in str(refused.value)
    assert len(key_of(new_secret())) == 32
