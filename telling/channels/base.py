"""What every kind of receiver is: a name, the fields it has, and one way to send. Another chat is one file beside this one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from telling.carrier import Carrier
from telling.outcome import Outcome

MAX_TEXT_CHARACTERS = 1500


class Target(msgspec.Struct, frozen=True):
    """Where to, opened: never log this."""

    url: str = ""
    secret: str = ""
    recipients: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "Target(…)"


class Message(msgspec.Struct, frozen=True):
    """What is told. `event`: firing | resolved | test; `at` in wall seconds; `value` and `threshold` in `unit`."""

    event: str
    rule: str
    condition: str
    about: str
    sentence: str
    at: float
    value: float = 0
    threshold: float = 0
    unit: str = ""

    @property
    def title(self) -> str:
        """One line: names may hold anything that people type."""
        return " ".join(f"[{self.event.upper()}] {self.rule}: {self.about}".split())[:200]

    @property
    def text(self) -> str:
        moment = datetime.fromtimestamp(self.at, UTC)
        return f"{self.title}\n{self.sentence}\n{moment:%Y-%m-%d %H:%M:%S} UTC, llmcontrol"[:MAX_TEXT_CHARACTERS]


class Channel(Protocol):
    """One kind of receiver. `fields`: which of url, secret, recipients it has → whether it cannot do without."""

    label: str
    fields: Mapping[str, bool]

    def problem(self, target: Target) -> tuple[str, str] | None:
        """(field, what is wrong with it), beyond what every address must be; None = nothing."""
        ...

    async def send(self, target: Target, message: Message, message_id: str, carrier: Carrier) -> Outcome:
        """One try. Never raises but for cancellation."""
        ...


class Chat:
    """The robot of a chat: one POST of JSON to an address of its own, and 200 whatever became of it: the body says."""

    label: str
    fields: Mapping[str, bool] = {"url": True, "secret": False}  # nosec B105 (a name)

    def call(self, target: Target, message: Message, now_s: float) -> tuple[str, dict[str, Any]]:
        """(URL, body), signed where there is a secret."""
        raise NotImplementedError

    def problem(self, target: Target) -> tuple[str, str] | None:
        return None

    async def send(self, target: Target, message: Message, message_id: str, carrier: Carrier) -> Outcome:
        url, body = self.call(target, message, carrier.wall())
        return await carrier.post(url, {"content-type": "application/json"}, msgspec.json.encode(body), self._refusal)

    def _refusal(self, answer: bytes) -> str:
        """A code of 0 is success with all of them; they differ in its name."""
        try:
            said = msgspec.json.decode(answer)
            code = next(said[name] for name in ("errcode", "code", "StatusCode") if name in said)
        except (msgspec.DecodeError, UnicodeDecodeError, StopIteration, TypeError):
            return f"What it answered is not what {self.label} answers: check that the address is that of its robot."
        if code == 0:
            return ""
        why = next((said[name] for name in ("errmsg", "msg", "StatusMessage") if said.get(name)), "no reason given")
        return f"{self.label} refused it with code {code}: {' '.join(str(why).split())[:200]}"
