"""A request whose bodies are kept, asked again in the playground: what fills in the form, for whom, and what cannot be asked again."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from access.models import Team, TeamMember
from core.errors import InvalidRequest
from llmcontrol.replay import answered, asked
from monitoring.models import AuditEvent, RequestBody, RequestLog
from tests.admin.conftest import World

pytestmark = pytest.mark.usefixtures("standing_world")

HOSTILE = "</script><script>alert(1)</script>"
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]


def kept(world: World, body: object, response: bytes = b"{}", dialect: str = "openai", cut: int = 0) -> None:
    request = json.dumps(body).encode()
    RequestLog.objects.update(dialect=dialect, team_id=str(world.team.pk), alias="gpt-4o")
    RequestBody.objects.create(
        request_id="req_one",
        started_at=world.request.started_at,
        key_id=str(world.key.pk),
        request=zlib.compress(request),
        response=zlib.compress(response),
        request_bytes=len(request) + cut,
        response_bytes=len(response),
    )


def page(client: Client, request_id: str = "req_one") -> str:
    return client.get("/admin/playground/", {"request": request_id}).content.decode()


def replayed(shown: str) -> Any:
    found = re.search(r'<script id="replayed" type="application/json">(.*?)</script>', shown)
    return found and json.loads(found[1])


def reads() -> int:
    return AuditEvent.objects.filter(action="body_read").count()


def test_a_conversation_comes_apart_into_what_the_form_has(root: Client, world: World) -> None:
    earlier = [{"role": "user", "content": "One"}, {"role": "assistant", "content": HOSTILE}]
    messages = [{"role": "system", "content": "Be <b>brief"}, *earlier, {"role": "user", "content": "Two"}]
    body = {"model": "gpt-4o", "stream": True, "user": "u1", "messages": messages, "tools": TOOLS, "temperature": 0.25, "max_tokens": 7}
    kept(world, body, b'{"choices":[{"message":{"content":"<i>said"}}]}')
    shown = page(root)
    assert "Be &lt;b&gt;brief</textarea>" in shown
    assert ">Two</textarea>" in shown
    assert replayed(shown) == {"messages": earlier, "fields": {"tools": TOOLS}}
    assert 'value="0.25"' in shown
    assert 'value="7"' in shown
    assert "&lt;i&gt;said" in shown
    assert HOSTILE not in shown
    assert f'<option value="{world.team.pk}" selected>' in shown
    assert reads() == 1


def test_other_dialects_are_asked_again_in_openais() -> None:
    told = asked(
        "anthropic",
        json.dumps(
            {"model": "m", "max_tokens": 9, "system": "Be brief", "top_k": 3, "messages": [{"role": "user", "content": "Hi"}]}
        ).encode(),
    )
    assert (told.system, told.prompt, told.messages) == ("Be brief", "Hi", [])
    assert told.fields == {"max_tokens": 9, "top_k": 3}
    told = asked("responses", json.dumps({"model": "m", "instructions": "Be brief", "input": "Hi"}).encode())
    assert (told.system, told.prompt) == ("Be brief", "Hi")
    assert asked("completions", b'{"model":"m","prompt":"Hi"}').prompt == "Hi"
    assert asked("generate", b'{"prompt":"Hi","max_tokens":5}').fields == {"max_tokens": 5}


def test_what_is_more_than_text_goes_along_as_it_was() -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]}
    named = {"role": "system", "content": "x", "name": "n"}
    told = asked("openai", json.dumps({"model": "m", "messages": [named, image]}).encode())
    assert (told.system, told.prompt, told.messages) == ("", "", [named, image])
    template = {"id": "words", "variables": {"a": "b"}}
    assert asked("openai", json.dumps({"model": "m", "prompt": template}).encode()).fields == {"prompt": template}


@pytest.mark.parametrize(
    ("dialect", "body", "words"),
    [
        ("embeddings", b'{"model":"m","input":"x"}', "chat models"),
        ("", b"{}", "unknown"),
        ("openai", b'{"model":"m","messages":[', "not valid JSON"),
        ("openai", b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"x":' + b"9" * 5000 + b"}", "cannot be shown"),
        ("generate", b'{"prompt":{"id":"words"}}', "prompt template"),
    ],
)
def test_what_cannot_be_asked_again_says_why(dialect: str, body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        asked(dialect, body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"choices":[{"message":{"content":"Hi"}},{"message":{"content":"other"}}]}', "Hi"),
        (b'data: {"choices":[{"delta":{"content":"H"}}]}\n\ndata: {"choices":[{"delta":{"content":"i"}}]}\n\ndata: [DONE]\n\n', "Hi"),
        (b'data: {"choices":[{"delta":{"content":"H"}}]}\n\ndata: {"choices":[{"del', "H"),
        (b'{"type":"message","content":[{"type":"text","text":"Hi"}]}', "Hi"),
        (b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"Hi"}}\n\n', "Hi"),
        (b'{"object":"response","text":{},"output":[{"content":[{"type":"output_text","text":"Hi"}]}]}', "Hi"),
        (
            b'data: {"type":"response.output_text.delta","delta":"Hi"}\n\ndata: {"type":"response.output_text.done","text":"Hi"}\n\n'
            b'data: {"type":"response.output_item.done","item":{"content":[{"text":"Hi"}]}}\n\n',
            "Hi",
        ),
        (b'{"choices":[{"text":"Hi"}]}', "Hi"),
        (b'{"text":"Hi"}', "Hi"),
        (b'data: {"delta": "H"}\n\ndata: {"delta": "i", "finish_reason": "stop"}\n\n', "Hi"),
        (b'{"error":{"message":"No budget.","code":null}}', "No budget."),
        (b'{"data":[1]}', '{"data":[1]}'),
        (b"\xff[", "\ufffd["),
        (b"[1]", "[1]"),
    ],
)
def test_the_words_of_an_answer_in_any_dialect(body: bytes, words: str) -> None:
    assert answered(body) == words


def test_a_body_that_was_cut_says_so(root: Client, world: World) -> None:
    kept(world, {"model": "m"}, cut=5)
    shown = page(root)
    assert "LLM_BODY_MAX_BYTES" in shown
    assert replayed(shown) is None


def test_where_none_is_kept_it_says_how(root: Client, world: World) -> None:
    assert "store bodies" in page(root)
    assert reads() == 0
    assert root.get("/admin/playground/", {"request": "req_none"}).status_code == 404


def test_the_way_there_is_for_those_who_may_read_bodies_and_make_keys(root: Client, staff: Callable[..., Client], world: World) -> None:
    kept(world, {"model": "m", "messages": []})
    link, detail = "/admin/playground/?request=req_one", reverse("admin:monitoring_requestlog_change", args=[world.request.pk])
    sees, reads_only = "monitoring.view_requestlog", "monitoring.view_requestbody"
    assert link in root.get(detail).content.decode()
    assert link not in staff(sees, reads_only, username="no keys").get(detail).content.decode()
    assert link not in staff(sees, "access.add_apikey", username="no bodies").get(detail).content.decode()
    assert link in staff(sees, reads_only, "access.add_apikey", username="both").get(detail).content.decode()
    assert reads() == 0


def test_nobody_reads_a_body_by_this_way_who_may_not(staff: Callable[..., Client], world: World) -> None:
    kept(world, {"model": "m", "messages": [{"role": "user", "content": "secret"}]})
    no_bodies = staff("monitoring.view_requestlog", "access.add_apikey", username="no bodies")
    assert no_bodies.get("/admin/playground/", {"request": "req_one"}).status_code == 403
    stranger = User.objects.create_user("mia", is_staff=True)
    stranger.user_permissions.add(Permission.objects.get(codename="view_requestbody"))
    TeamMember.objects.create(team=Team.objects.create(name="theirs"), user=stranger, role="manager")
    client = Client()
    client.force_login(stranger)
    assert client.get("/admin/playground/", {"request": "req_one"}).status_code == 404
    assert reads() == 0
