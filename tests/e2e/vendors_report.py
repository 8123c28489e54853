"""What the replayed exchanges show, vendor by vendor and case by case: for the terminal, and as docs/vendors.md.

`python -m tests.e2e.vendors_report` replays everything and prints the table; `--write` writes the page too.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from providers.adapters import registry
from providers.adapters.quirks import Quirks
from tests import replay
from tests.adapters.cast import provider
from tests.e2e.replay_drive import run
from tests.e2e.replay_judge import ANSWERS, ERRORS, REQUESTS, USAGE, Verdict, judge
from tests.e2e.replay_plan import (
    ANTHROPIC,
    CHAT,
    COMPLETIONS,
    COUNT,
    EMBEDDINGS,
    MODELS,
    NOT_OFFERED,
    RESPONSES,
    exchanges,
    kind_of,
    passing,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "vendors.md"
COMMAND = "python -m tests.e2e.vendors_report --write"
_HEARD = {"recorded", "recorded-body"}  # by somebody, from the vendor itself
_NO_VENDORS = ("echo", registry.CUSTOM)
_NAMES = {CHAT: "chat completions", ANTHROPIC: "messages", RESPONSES: "responses", EMBEDDINGS: "embeddings", COMPLETIONS: "completions"}


def _case(*names: str) -> Callable[[Verdict], bool]:
    return lambda verdict: verdict.plan.id not in ERRORS and bool(verdict.plan.cases & set(names))


def _asked(*dialects: str, streams: bool | None = None) -> Callable[[Verdict], bool]:
    return lambda verdict: verdict.plan.id not in ERRORS and verdict.plan.dialect in dialects and streams in (None, verdict.plan.streams)


# Of an exchange: which columns it counts in. Most count in several.
COLUMNS: dict[str, Callable[[Verdict], bool]] = {
    "chat": _asked(CHAT, ANTHROPIC, streams=False),
    "stream": _asked(CHAT, ANTHROPIC, streams=True),
    "tools": _case("tool-call", "parallel-tools", "tool-result"),
    "reasoning": _case("reasoning", "reasoning-tokens", "thought-signature"),
    "images": _case("image-input", "multimodal"),
    "JSON": _case("json", "structured"),
    "refusal": _case("refusal", "content-filter"),
    "embeddings": _asked(EMBEDDINGS),
    "completions": _asked(COMPLETIONS),
    "responses": _asked(RESPONSES),
    "models": _asked(MODELS),
    "count": _asked(COUNT),
    "errors": lambda verdict: verdict.plan.id in ERRORS,
    "request": lambda verdict: verdict.plan.expected is not None,
    "usage": lambda verdict: USAGE in verdict.findings,
    "dialects": lambda verdict: bool(verdict.plan.other_dialects),
}
_EXPLAINED = """\
A cell is exchanges that passed / exchanges of that case; most exchanges count in several columns. A pass means all of this, through
a live gateway process and over sockets:

- *answer*: text, reasoning, tool calls with their ids and arguments, finish reason, as an independent reading of the recording has
  them. Where the vendor speaks the client's dialect, every event and field, but for what is listed as mended below.
- *request*: what the vendor was sent is what was recorded, but for what is listed as intended below. Column `request`: those whose
  body could be compared.
- *usage*: the ledger's buckets, and what the client is told, are the vendor's numbers; where it gave none, ours, marked as estimated.
- *errors*: the HTTP status and code that this kind of failure has here, never the vendor's own 401.
- *dialects*: the same answer to a client of each dialect that is translated for this vendor, among chat completions, messages and
  responses.

Evidence *recorded*: a real exchange from a public test suite. *Written*: after the vendor's documentation and reported errors, where
no recording is public; weaker."""


def verdicts(state_dir: Path) -> list[Verdict]:
    """Replays everything. In the order of the index."""
    return [judge(outcome) for outcome in run(state_dir).values()]


# The table ------------------------------------------------------------------------------------------------------------


def table(found: Iterable[Verdict]) -> list[list[str]]:
    """Rows of cells, the first of them the head, the last the sum."""
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in found:
        evidence = "recorded" if verdict.plan.exchange["kind"] in _HEARD else "written"
        groups.setdefault((verdict.plan.vendor, evidence), []).append(verdict)
        groups.setdefault(("~all", evidence), []).append(verdict)
    rows = [[vendor.lstrip("~"), evidence, *_cells(group)] for (vendor, evidence), group in sorted(groups.items())]
    return [["recording of", "evidence", *COLUMNS, "all"], *rows]


def _cells(group: list[Verdict]) -> list[str]:
    return [*(_cell([verdict for verdict in group if counts(verdict)]) for counts in COLUMNS.values()), _cell(group)]


def _cell(group: list[Verdict]) -> str:
    return f"{sum(verdict.passed for verdict in group)}/{len(group)}" if group else ""


def terminal(found: list[Verdict]) -> list[str]:
    rows = table(found)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    failed = [f"{verdict.plan.id}: {aspect}" for verdict in found for aspect, findings in verdict.findings.items() if findings]
    return [*lines, *failed, f"{len(NOT_OFFERED)} more exchanges are of endpoints that are not offered; docs/vendors.md names them."]


def _markdown(rows: list[list[str]]) -> list[str]:
    head, *rest = [f"| {' | '.join(row)} |" for row in rows]
    return [head, "|---" * len(rows[0]) + "|", *rest]


# The page -------------------------------------------------------------------------------------------------------------


def page(found: list[Verdict]) -> str:
    lines = [
        "# Vendors",
        "",
        f"Written by `{COMMAND}`; a test fails where this page is not what the command would write.",
        "",
        "## What was replayed",
        "",
        *_markdown(table(found)),
        "",
        _EXPLAINED,
        "",
        "## Provider types",
    ]
    for kind, label in sorted(registry.kinds(), key=lambda pair: pair[1].lower()):
        if kind not in _NO_VENDORS:
            lines += ["", f"### {label}", "", *_section(kind, [verdict for verdict in found if verdict.plan.kind == kind])]
    return "\n".join([*lines, "", *_homeless()]) + "\n"


def _section(kind: str, found: list[Verdict]) -> list[str]:
    passed = sum(verdict.passed for verdict in found)
    lines = [
        f"- Provider type: `{kind}`",
        f"- Address: {_code(registry.default_base_url(kind)) or 'the admin gives it'}",
        f"- Passes through: {', '.join(_NAMES[name] for name in _NAMES if name in passing(kind)) or 'nothing, all is translated'}",
        *(f"- {quirk}" for quirk in _quirks(kind)),
        f"- Replayed: {passed} of {len(found)} exchanges passed" if found else "- Replayed: nothing; no recording of it is public",
    ]
    lines += _listed("Sent otherwise than was recorded, as intended", _met(found, REQUESTS))
    lines += _listed("Mended on the way to clients of its own dialect", _met(found, ANSWERS))
    lines += _listed("Request not compared", _uncompared(found))
    return lines + _listed("Not offered", _not_offered(kind))


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _listed(title: str, items: list[str]) -> list[str]:
    return [f"- {title}:", *(f"  - {item}" for item in items)] if items else []


def _met(found: list[Verdict], known: list[Any]) -> list[str]:
    met = {each for verdict in found for each in verdict.intended}
    return [f"{_code(each.sign.strip())}: {each.reason}" for each in known if each in met]


def _uncompared(found: list[Verdict]) -> list[str]:
    ids: dict[str, list[str]] = {}
    for verdict in found:
        if verdict.plan.why_not:
            ids.setdefault(verdict.plan.why_not, []).append(verdict.plan.id)
    return [f"{reason}: {', '.join(map(_code, named))}" for reason, named in ids.items()]


def _not_offered(kind: str) -> list[str]:
    return [f"{_code(exchange['id'])}: {NOT_OFFERED[exchange['id']]}" for exchange in _left_out() if kind_of(exchange) == kind]


def _left_out() -> list[dict[str, Any]]:
    return [exchange for exchange in exchanges() if exchange["id"] in NOT_OFFERED]


def _homeless() -> list[str]:
    """What was recorded of vendors that have no provider type."""
    kinds = dict(registry.kinds())
    items = [f"- {_code(exchange['id'])}: {NOT_OFFERED[exchange['id']]}" for exchange in _left_out() if kind_of(exchange) not in kinds]
    return ["## Recorded of others, and not offered", "", *items] if items else []


def _quirks(kind: str) -> list[str]:
    """In words, what the registry says of a vendor with OpenAI's wire."""
    adapter: Any = registry.adapter_for(provider(kind))
    quirks: Quirks | None = getattr(adapter, "quirks", None)
    if quirks is None:
        return ["Wire: its own"]
    told = [
        "Wire: OpenAI's",
        *(f"`{ours}` is sent as `{theirs}`" for ours, theirs in quirks.renames),
        *(f"Option `{option}` is sent as header `{header}`" for option, header in quirks.option_headers),
        f"The key is sent as header `{quirks.key_header}`" if quirks.key_header != "Authorization" else "",
        f"Translated requests limit the answer by `{quirks.max_tokens_field}`",
        "" if quirks.developer_role else "Translated requests say `system` for the role `developer`",
        "Messages hold OpenAI's keys alone: earlier reasoning is left out of them, with a report" if quirks.strict_messages else "",
        "" if quirks.stream_usage else "`stream_options` is never sent; usage comes unasked",
        f"Translated requests may also use {', '.join(map(_code, sorted(quirks.extensions)))}" if quirks.extensions else "",
    ]
    return [line for line in told if line]


def main(arguments: list[str]) -> int:
    if not replay.RECORDED.is_dir():
        print(replay.ABSENT, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as state_dir:
        found = verdicts(Path(state_dir))
    print("\n".join(terminal(found)))
    if arguments == ["--write"]:
        PAGE.write_text(page(found))
    return 0 if all(verdict.passed for verdict in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
