"""What people read on the admin site, found where it stands: so nobody keeps a list, and nothing is forgotten.

labels      of models that are shown, asked of the models themselves
declared    by vendors, conditions of alerts, and columns with colours
calls       gettext's, in Python
templates   ours, and those of the admin's theme, which comes without translations
sentences   texts in the code of `SENTENCES`, with {names} for values; see monitoring.sentences
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import unfold
from django.conf import settings
from django.contrib import admin
from django.utils.translation.template import templatize

from core.catalogue import Message
from core.choice import STRATEGIES
from llmcontrol.languages import labels
from monitoring.sentences import PLACE
from providers.adapters import registry
from telling.alerts.kinds import KINDS

Places = dict[Message, set[str]]
# Code whose sentences reach pages of the admin: refusals of forms, messages of actions, reasons, reports and alerts.
SENTENCES: Final = (
    *("access/*.py", "models_registry/*.py", "providers/*.py", "telling/alert*.py", "telling/alerts/*.py", "telling/channels/*.py"),
    *("telling/admin.py", "telling/callbacks.py", "telling/carrier.py", "telling/delivery.py", "telling/services.py", "tasks/admin.py"),
    *("core/money.py", "core/guard.py", "core/errors.py", "core/addresses.py", "providers/adapters/registry.py"),
    *("monitoring/admin.py", "monitoring/audit_admin.py", "monitoring/explain.py", "monitoring/filters.py", "monitoring/pages.py"),
    *("monitoring/saved_filters.py", "monitoring/timeline.py", "tasks/models.py"),
    "gateway/probing.py",
    *("llmcontrol/costs.py", "llmcontrol/dashboard.py", "llmcontrol/playground.py", "llmcontrol/replay.py", "llmcontrol/storage_errors.py"),
    *(
        f"llmcontrol/portable/{name}.py"
        for name in ("document", "taking", "kind", "providers", "budgets", "grants", "prompts", "alerts", "page")
    ),
)
# Of these also what is less than a sentence: reasons and names of groups, which are put together.
FRAGMENTS: Final = (
    *("core/choice.py", "gateway/choice.py", "monitoring/explain.py", "models_registry/chains.py", "models_registry/catalogue.py"),
    *("telling/alerts/conditions.py", "telling/alert_services.py", "tasks/schemas.py"),
)
_NOT_READ: Final = frozenset(
    {"checks.py", "seeding.py", "provider_file.py", "jobs.py", "signals.py", "queue.py", "shipped_prompts.py", "roles.py"}
)
_CALLS: Final = {
    "gettext": 1, "gettext_lazy": 1, "gettext_noop": 1, "_": 1,
    "ngettext": 2, "ngettext_lazy": 2, "pgettext": -1, "pgettext_lazy": -1,
}  # fmt: skip
# What the log says, what vendors are asked when a connection is tested, and what Django alone keeps.
_NOT_TOLD: Final = frozenset({"compile", "warning", "exception", "info", "_ask", "_asking", "log_change", "_limit", "_cache_ttl"})
_LABELS: Final = frozenset({"help_text", "verbose_name", "verbose_name_plural", "description"})
_CALL = re.compile(r"\b(_|n?gettext|pgettext)\(((?:\s*,?\s*u?(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"))+)")
_WORD = re.compile(r"[A-Za-z]")
_SENTENCE = re.compile(r"[A-Z“{'…].*[.?!…]", re.DOTALL)
_FRAGMENT = re.compile(r"[a-z]{2,} ")
_WORDS = re.compile(r"[A-Za-z’']{2,}[,;:]? [(“]?[A-Za-z’']+")


def exact() -> Places:
    """Messages that gettext looks up, and where each stands."""
    found: Places = defaultdict(set)
    for message, place in (*_labels(), *_declared(), *_calls(settings.BASE_DIR), *_templates(settings.BASE_DIR / "templates")):
        found[message].add(place)
    theme = Path(unfold.__file__).parent
    for message, _ in (*_calls(theme.parent, "unfold"), *_templates(theme / "templates")):
        found[message].add("unfold")
    return found


def sentences(known: Places) -> Places:
    """Without those that are among the exact messages."""
    found: Places = defaultdict(set)
    for pattern in (*SENTENCES, *FRAGMENTS):
        for path in sorted(path for path in settings.BASE_DIR.glob(pattern) if path.name not in _NOT_READ):
            for text in sentences_in(path.read_text("utf-8"), fragments=pattern in FRAGMENTS):
                if Message(text) not in known:
                    found[Message(text)].add(str(path.relative_to(settings.BASE_DIR)))
    return found


def _labels() -> Iterator[tuple[Message, str]]:
    for app in labels.our_apps():
        yield Message(str(app.verbose_name)), app.name
    for model in labels.our_models():
        yield Message(str(model._meta.verbose_name)), model._meta.label
        yield Message(str(model._meta.verbose_name_plural)), model._meta.label
    for model in labels.shown_models():
        for field in labels.fields_of(model):
            texts = (field.verbose_name, field.help_text, *(label for _, label in field.choices or ()))
            yield from ((Message(str(text)), f"{model._meta.label}.{field.name}") for text in texts if text)


def _declared() -> Iterator[tuple[Message, str]]:
    """By vendors, for the form of a provider; by conditions of alerts; and by columns with colours."""
    for kind, label in registry.kinds():
        fields = registry.form(kind)
        texts = [text for field in fields for text in (field.label, field.help_text, *(name for _, name in field.choices))]
        yield from ((Message(text), f"provider type {kind}") for text in (label, *texts) if text)
    for name, condition in KINDS.items():
        yield Message(condition.unit), f"alert condition {name}"
    yield from ((Message(strategy), "core.choice") for strategy in STRATEGIES)
    for page in admin.site._registry.values():
        for column in (getattr(type(page), name) for name in dir(type(page))):
            if isinstance(words := getattr(column, "label", None), dict):
                yield from ((Message(word), type(page).__name__) for word in words if _WORD.match(word))


def _calls(root: Path, *packages: str) -> Iterator[tuple[Message, str]]:
    names = packages or sorted({app.name.partition(".")[0] for app in labels.our_apps()})
    for path in sorted(path for name in names for path in (root / name).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and (message := _called(node)):
                yield message, str(path.relative_to(root))


def _templates(folder: Path) -> Iterator[tuple[Message, str]]:
    for path in sorted(folder.rglob("*.html")):
        for function, arguments in _CALL.findall(templatize(path.read_text("utf-8"))):
            if message := _message(function, list(ast.literal_eval(f"({arguments.strip().rstrip(',')},)"))):
                yield message, str(path.relative_to(folder))


def _called(node: ast.Call) -> Message | None:
    name = _name(node.func)
    return _message(name, [_constant(argument) for argument in node.args]) if name in _CALLS else None


def _message(function: str, texts: list[str]) -> Message | None:
    count = _CALLS[function]
    if len(texts) < abs(count) or not texts[0]:
        return None
    if count == -1:
        return Message(texts[1], context=texts[0])
    return Message(texts[0], texts[1] if count == 2 else "")


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _constant(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


# Sentences ----------------------------------------------------------------------------------------------------------
def sentences_in(code: str, *, fragments: bool = False) -> Iterator[str]:
    """Of a module: texts that read as sentences, without docstrings, labels and what gettext looks up."""
    tree = ast.parse(code)
    left_out = {id(node) for each in ast.walk(tree) for node in _not_sentences(each)}
    for node in ast.walk(tree):
        text = "" if id(node) in left_out else text_of(node)
        words = PLACE.sub(" ", text)
        if (_SENTENCE.fullmatch(text) and _WORDS.search(words)) or (fragments and _FRAGMENT.search(words)):
            yield text


def _not_sentences(node: ast.AST) -> Iterator[ast.AST]:
    if (
        isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    ):
        yield node.body[0].value
    if isinstance(node, ast.JoinedStr):
        yield from (part for part in node.values if isinstance(part, ast.Constant))
    if isinstance(node, ast.Assign) and _name(node.targets[0]) == "asked":
        yield node.value
    if isinstance(node, ast.keyword) and node.arg in _LABELS:
        yield from ast.walk(node.value)
    if isinstance(node, ast.Call) and (_name(node.func) in _CALLS or _name(node.func) in _NOT_TOLD):
        yield from node.args


def text_of(node: ast.AST) -> str:
    """A text or an f-string, {names} standing for its values; "" = neither."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return ""
    names: list[str] = []
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            name = re.sub(r"[^a-z0-9_]", "", _name(part.value).lower()) or "value"
            names.append(f"{name}{names.count(name) + 1}" if name in names else name)
    given = iter(names)
    return "".join(_constant(part) if isinstance(part, ast.Constant) else f"{{{next(given)}}}" for part in node.values)
