"""What a live server keeps of what is said: of the key that wants it the words of both sides, of any other key nothing."""

from __future__ import annotations

import pytest

from tests.e2e import wire
from tests.e2e.control import ECHO, Control, unique, until

pytestmark = pytest.mark.process


def bodies(control: Control, request_id: str) -> dict[str, dict[str, str]]:
    """{} = none yet."""
    found = control.call("GET", f"/api/v1/requests/{request_id}/bodies", expect=(200, 404))
    return found if "request" in found else {}


def test_bodies_are_kept_of_the_key_that_wants_them(control: Control) -> None:
    loud, quiet = control.new_key(store_bodies=True), control.new_key()
    control.apply()
    said, unsaid = unique("said"), unique("unsaid")
    silent = wire.chat(control.base_url, quiet["key"], ECHO, unsaid)
    answer = wire.chat(control.base_url, loud["key"], ECHO, said)
    assert (silent.status, answer.status) == (200, 200)

    found = until(lambda: bodies(control, answer.request_id), "the bodies are entered")
    assert said in found["request"]["text"]
    assert found["response"]["text"] == answer.body.decode()
    assert loud["key"] not in str(found)
    control.request(silent.request_id)
    assert bodies(control, silent.request_id) == {}
    events = control.call("GET", "/api/v1/audit?action=body_read")["results"]
    assert answer.request_id in {event["object_label"] for event in events}
