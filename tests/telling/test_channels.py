"""Each kind of channel against a stub on loopback: what arrives is what its documentation asks for, and its answer is understood.

Expected signatures were made with openssl, e.g. `printf '1800000000000\nSECabc' | openssl dgst -sha256 -hmac SECabc -binary | base64`.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from email import message_from_bytes, policy
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from telling import signing
from telling.carrier import Carrier
from telling.channels.base import Message, Target
from telling.channels.registry import CHANNELS
from telling.outcome import Outcome
from tests.telling.receiver import Receiver

NOW = 1_800_000_000.0
SECRET = signing.new_secret()
MESSAGE = Message(
    event="firing",
    rule="Error rate above 10 %",
    condition="error_rate",
    about="all requests",
    sentence="12.5 % of the requests failed: 5 of 40.",
    at=NOW,
    value=12.5,
    threshold=10,
    unit="% of the requests",
)
TEXT = "[FIRING] Error rate above 10 %: all requests\n12.5 % of the requests failed: 5 of 40.\n2027-01-15 08:00:00 UTC, llmcontrol"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.close()


async def send(kind: str, target: Target, port: int = 1, message: Message = MESSAGE) -> Outcome:
    carrier = Carrier([("127.0.0.1/32", port)], 30, lambda: NOW)
    try:
        return await CHANNELS[kind].send(target, message, "msg_1", carrier)
    finally:
        await carrier.close()


async def test_a_webhook_is_signed_as_standard_webhooks(receiver: Receiver) -> None:
    assert (await send("webhook", Target(receiver.url(), SECRET), receiver.port)).error == ""
    (heard,) = receiver.heard
    assert signing.verify([SECRET], heard.headers, heard.body, NOW) == "msg_1"
    assert json.loads(heard.body) == {
        "event_type": "alert.firing",
        "timestamp": "2027-01-15T08:00:00Z",
        "data": {
            "rule": "Error rate above 10 %",
            "condition": "error_rate",
            "about": "all requests",
            "sentence": "12.5 % of the requests failed: 5 of 40.",
            "value": 12.5,
            "threshold": 10.0,
            "unit": "% of the requests",
        },
    }


async def test_dingtalk_has_its_signature_in_the_address(receiver: Receiver) -> None:
    receiver.answer = b'{"errcode":0,"errmsg":"ok"}'
    outcome = await send("dingtalk", Target(receiver.url("200", "/send?access_token=t"), "SECabc"), receiver.port)
    assert outcome.error == ""
    (heard,) = receiver.heard
    assert parse_qs(urlsplit(heard.path).query) == {
        "access_token": ["t"],
        "timestamp": ["1800000000000"],
        "sign": ["s70k7/iqeFJrhlEAPSnI9WrGLqC5YHz9Hg5m2rQkeQk="],
    }
    assert json.loads(heard.body) == {"msgtype": "text", "text": {"content": TEXT}}


async def test_feishu_has_its_signature_in_the_body(receiver: Receiver) -> None:
    receiver.answer = b'{"code":0,"msg":"success","data":{}}'
    assert (await send("feishu", Target(receiver.url("200"), "fs-secret"), receiver.port)).error == ""
    (heard,) = receiver.heard
    assert json.loads(heard.body) == {
        "msg_type": "text",
        "content": {"text": TEXT},
        "timestamp": "1800000000",
        "sign": "ID6TDgB7fqJs7Os/Zjt8N/XVuU9pDUMsUdHgkgN1i/4=",
    }


async def test_wecom_has_none_and_takes_2048_bytes(receiver: Receiver) -> None:
    receiver.answer = b'{"errcode":0,"errmsg":"ok"}'
    long = Message(event="firing", rule="规则" * 40, condition="error_rate", about="模型", sentence="错" * 2000, at=NOW)
    assert (await send("wecom", Target(receiver.url("200", "/send?key=k")), receiver.port)).error == ""
    assert (await send("wecom", Target(receiver.url("200", "/send?key=k")), receiver.port, long)).error == ""
    first, second = receiver.heard
    assert json.loads(first.body) == {"msgtype": "text", "text": {"content": TEXT}}
    assert 2040 < len(json.loads(second.body)["text"]["content"].encode()) <= 2048


@pytest.mark.parametrize("kind", ["dingtalk", "feishu"])
async def test_without_a_secret_nothing_is_signed(receiver: Receiver, kind: str) -> None:
    receiver.answer = b'{"errcode":0,"code":0}'
    await send(kind, Target(receiver.url("200")), receiver.port)
    assert b"sign" not in receiver.heard[0].body
    assert "sign" not in receiver.heard[0].path


@pytest.mark.parametrize(
    ("kind", "answer", "says"),
    [
        ("dingtalk", b'{"errcode":310000,"errmsg":"sign not match"}', "DingTalk refused it with code 310000: sign not match"),
        ("feishu", b'{"code":19021,"msg":"sign match fail"}', "Feishu / Lark refused it with code 19021: sign match fail"),
        ("wecom", b'{"errcode":93000,"errmsg":"invalid webhook url"}', "WeCom refused it with code 93000: invalid webhook url"),
        ("wecom", b"<html>", "What it answered is not what WeCom answers: check that the address is that of its robot."),
        ("feishu", b"[]", "What it answered is not what Feishu / Lark answers: check that the address is that of its robot."),
    ],
)
async def test_a_chat_that_refuses_says_so_in_a_200(receiver: Receiver, kind: str, answer: bytes, says: str) -> None:
    receiver.answer = answer
    outcome = await send(kind, Target(receiver.url("200")), receiver.port)
    assert (outcome.status_code, outcome.error, outcome.final) == (200, says, False)


@pytest.mark.parametrize("kind", ["webhook", "dingtalk", "feishu", "wecom"])
async def test_every_one_goes_through_the_guard(receiver: Receiver, kind: str) -> None:
    outcome = await send(kind, Target(receiver.url(), SECRET), receiver.port + 1)
    assert "WEBHOOK_ALLOW" in outcome.error
    assert receiver.heard == []


class _Mail(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as a sender needs."""

    def handle(self) -> None:
        self.wfile.write(b"220 stub\r\n")
        while line := self.rfile.readline().strip():
            verb = line.split(b" ")[0].upper()
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.mails.append((list(self.server.envelope), b"".join(lines)))  # type: ignore[attr-defined]
            if verb in (b"MAIL", b"RCPT"):
                self.server.envelope.append(line.decode())  # type: ignore[attr-defined]
                if b"refused@" in line:
                    self.wfile.write(b"550 no such mailbox\r\n")
                    continue
            self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")


@pytest.fixture
def mail_server(settings: Any) -> Iterator[socketserver.ThreadingTCPServer]:
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Mail)
    server.daemon_threads = True
    server.mails, server.envelope = [], []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.server_address[1]
    yield server
    server.shutdown()
    server.server_close()


async def test_e_mail_reaches_the_mail_server(mail_server: socketserver.ThreadingTCPServer) -> None:
    long = Message(event="resolved", rule="a\r\nBcc: x@example.com", condition="budget", about="b", sentence="It is over.", at=NOW)
    outcome = await send("email", Target(recipients=("ops@example.com", "duty@example.com")), message=long)
    assert outcome.error == ""
    ((envelope, raw),) = mail_server.mails  # type: ignore[attr-defined]
    assert [line.split("<")[1].split(">")[0] for line in envelope] == ["llmcontrol@localhost", "ops@example.com", "duty@example.com"]
    mail = message_from_bytes(raw, policy=policy.default)
    assert (mail["subject"], mail["to"]) == ("[RESOLVED] a Bcc: x@example.com: b", "ops@example.com, duty@example.com")
    assert "bcc" not in mail
    assert "It is over." in mail.get_content()


async def test_e_mail_that_is_refused_says_why(mail_server: socketserver.ThreadingTCPServer) -> None:
    outcome = await send("email", Target(recipients=("refused@example.com",)))
    assert "did not take it" in outcome.error
    assert "no such mailbox" in outcome.error


async def test_without_a_mail_server_it_says_what_to_set(settings: Any) -> None:
    settings.EMAIL_HOST = ""
    outcome = await send("email", Target(recipients=("ops@example.com",)))
    assert outcome.final
    assert "EMAIL_HOST" in outcome.error
