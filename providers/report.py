"""What a connection test found, check by check, and what a failure is called in front of an admin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from core.errors import GatewayError, OutboundRefused, ProviderError, ProviderRefused, ProviderRejectedOurKey, ProviderUnreachable
from providers.adapters.openai_errors import parse_error

CheckResult = Literal["pass", "fail", "not_offered"]

# In the order in which they are shown, which is almost that in which they are tried.
CHAT_CHECKS = ("auth", "list", "chat", "stream", "usage", "tools", "parallel_tools", "json_schema", "cancel", "error_shape")
EMBEDDING_CHECKS = ("auth", "list", "embeddings", "usage", "error_shape")
# What a vendor may well lack: these say what it can do, the others whether it works at all.
_GRADES = frozenset({"usage", "tools", "parallel_tools", "json_schema", "cancel", "error_shape"})
# The checks that say something about the model, by the word for it in a model's capabilities.
CAPABILITIES = ("stream", "tools", "parallel_tools", "json_schema")


@dataclass(frozen=True, slots=True)
class ConnectionCheck:
    """One thing that was tried. `detail` is a plain sentence for the admin. `judged` False: it says nothing about the model,
    because the check was not reached, or something else went wrong in the middle of it."""

    name: str
    result: CheckResult
    detail: str
    judged: bool = True

    @property
    def kind(self) -> str:
        """The name without the key that it is about: "auth, key …cdef" is "auth"."""
        return self.name.partition(",")[0]


@dataclass(slots=True)
class ConnectionReport:
    """`model` is the vendor's id of the model that was tried, "" = none. `latency_ms` is that of its first answer, or of the
    list where it gave none; 0 = nothing was answered. `tokens_used` holds estimates where the vendor did not count."""

    checks: list[ConnectionCheck] = field(default_factory=list)
    latency_ms: int = 0
    tokens_used: int = 0
    model: str = ""
    under_way: str = ""

    @property
    def ok(self) -> bool:
        """Something was answered, and nothing failed that requests need."""
        results = {check.result for check in self.checks if check.kind not in _GRADES}
        return "fail" not in results and "pass" in results

    def add(self, name: str, result: CheckResult, detail: str, judged: bool = True) -> None:
        self.checks.append(ConnectionCheck(name, result, detail, judged))
        self.under_way = ""

    def found(self, kind: str) -> ConnectionCheck | None:
        return next((check for check in self.checks if check.kind == kind), None)

    def passed(self, kind: str) -> bool:
        check = self.found(kind)
        return check is not None and check.result == "pass"

    def stop(self, reason: str) -> None:
        """Time is up. What was under way counts against the vendor only where requests could not do without it."""
        if self.under_way:
            self.add(self.under_way, "not_offered" if self.under_way in _GRADES else "fail", reason, judged=False)

    def complete(self, names: tuple[str, ...], reason: str) -> None:
        """Adds what was not reached, so that every report of one kind has the same lines, and puts them in order."""
        for name in names:
            if self.found(name) is None:
                self.add(name, "not_offered", reason, judged=False)
        self.checks.sort(key=lambda check: names.index(check.kind) if check.kind in names else -1)

    def tested(self) -> dict[str, CheckResult]:
        """Check → result, the worst of several keys."""
        table: dict[str, CheckResult] = {}
        for check in self.checks:
            if table.get(check.kind) != "fail":
                table[check.kind] = check.result
        return table

    def capabilities(self, known: list[str]) -> list[str]:
        """`known`, with what passed and without what the model turned out not to have; every other word stays."""
        judged = {check.kind: check.result == "pass" for check in self.checks if check.judged and check.kind in CAPABILITIES}
        kept = [word for word in known if judged.get(word, True)]
        return kept + [name for name in CAPABILITIES if judged.get(name) and name not in kept]


def in_plain_words(error: GatewayError, base_url: str) -> str:
    """For admins, who may know addresses and what the vendor said; callers get `error.message` alone."""
    status = error.vendor_status if isinstance(error, ProviderError) else 0
    if isinstance(error, OutboundRefused) and error.detail:
        return f"{error.message} ({error.detail})"
    if isinstance(error, ProviderUnreachable):
        return f"Nothing listens at {base_url}." if _was_refused(error) else f"{error.message} ({urlsplit(base_url).netloc})"
    if isinstance(error, ProviderRejectedOurKey):
        return f"The vendor refused the key ({status}).{vendors_words(error)}"
    return f"{error.message} (HTTP {status}){vendors_words(error)}" if status else error.message


def _was_refused(error: ProviderUnreachable) -> bool:
    return isinstance(getattr(error.__cause__, "os_error", None), ConnectionRefusedError)


def vendors_words(error: GatewayError) -> str:
    """The message in the error body that `detail` quotes, which is redacted; "" where there is none or we repeat it already."""
    if isinstance(error, ProviderRefused) or not (error.detail or "").startswith("HTTP "):
        return ""
    said = parse_error((error.detail or "").partition(": ")[2].encode()).message
    return f' It said: "{said}"' if said else ""
