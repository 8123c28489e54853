"""docs/reference.md: every command, metric, error and permission, taken from the code that has them.

`python -m tests.run.reference_page` prints the page; `--write` writes it.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import django
from django.apps import apps
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand
from prometheus_client import Counter, Gauge, Histogram

from core import errors
from tests.live import ROOT

PAGE = ROOT / "docs" / "reference.md"
COMMAND = "python -m tests.run.reference_page --write"
_OF_EVERY_COMMAND = {action.dest for action in BaseCommand().create_parser("manage.py", "any")._actions}
_ERROR_LINE = re.compile(r"^[\s│├└─]*(\w+) +(\d{3}) {2}(.+)$", re.MULTILINE)
_ABSTRACT = (errors.GatewayError, errors.CallerError, errors.ProviderError)


def page() -> str:
    """The whole page. Django must be set up; asks no database."""
    from access.roles import ROLES, TEAM_ROLES
    from monitoring import metrics

    sections = (
        ("Commands", "`python manage.py COMMAND`. The settings of [configuration](configuration.md) hold for all of them.", commands()),
        ("Metrics", _METRICS, metric_rows(metrics)),
        ("Errors", _ERRORS, error_rows()),
        ("Permissions", _PERMISSIONS, permission_rows(ROLES, TEAM_ROLES)),
    )
    text = [f"# Reference\n\nWritten by `{COMMAND}` from the code itself; a test fails where this page is not what it would write.\n"]
    for title, preface, rows in sections:
        text.append(f"## {title}\n\n{preface}\n\n{_table(rows)}")
    given = frozenset[str]().union(*(permissions for table in (ROLES, TEAM_ROLES) for _, permissions in table.values()))
    text.append(f"No role has: {', '.join(f'`{permission}`' for permission in sorted(set(_permissions()) - given))}.\n")
    return "\n".join(text)


_METRICS = (
    "At `/metrics`, summed over the processes of one machine, beside those of django-prometheus. A label's values are names of rows, "
    "outcomes and codes, and so bounded."
)
_ERRORS = (
    "What a program gets, and how `code` and `type` read in an OpenAI error body. *Another target* says whether the next model of a chain "
    "is asked; *breaker* whether it counts as the provider's failure."
)
_PERMISSIONS = (
    "Of people: the four roles over everything, then the three in a team, which hold for that team's rows alone. What no role has, "
    "below the table, is a superuser's. [Access](access.md) says how they work together, and what grants and API keys add."
)


def commands() -> Iterator[Sequence[str]]:
    yield "command", "what it does", "options"
    ours = {config.name for config in apps.get_app_configs() if Path(config.path).parent == ROOT}
    for name, app in sorted(get_commands().items()):
        if app in ours:
            command = load_command_class(app, name)
            actions = command.create_parser("manage.py", name)._actions
            options = [_option(action) for action in actions if action.dest not in _OF_EVERY_COMMAND]
            yield f"`{name}`", command.help, "<br>".join(options)


def _option(action: argparse.Action) -> str:
    name = action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest).upper()
    choices = f" {{{', '.join(map(str, action.choices))}}}" if action.choices else ""
    meaning = (action.help or "") % {"default": action.default}
    return f"`{name}`{choices}: {meaning}"


def metric_rows(module: ModuleType) -> Iterator[Sequence[str]]:
    from monitoring.metrics import ALIASES

    yield "metric", "kind", "labels", "what"
    for metric in sorted(_metrics(module), key=lambda metric: metric._name):
        name = f"{metric._name}_total" if isinstance(metric, Counter) else metric._name
        also = f" Also as `{ALIASES[name]}`." if name in ALIASES else ""
        yield f"`{name}`", metric._type, ", ".join(metric._labelnames), f"{metric._documentation}.{also}"


def _metrics(module: ModuleType) -> Iterable[Counter | Gauge | Histogram]:
    return {value for value in vars(module).values() if isinstance(value, Counter | Gauge | Histogram)}


def error_rows() -> Iterator[Sequence[str]]:
    yield "status", "`code`", "`type`", "what happened", "another target", "breaker"
    meanings = {name: meaning for name, _, meaning in _ERROR_LINE.findall(errors.__doc__ or "")}
    for error in sorted(_descendants(errors.GatewayError), key=lambda error: (error.http_status, str(error.code))):
        if error not in _ABSTRACT:
            said = f"`{error.code}`" if error.code else ""
            yield (
                str(error.http_status),
                said,
                f"`{error.type}`",
                meanings[error.__name__],
                _mark(error.retryable),
                _mark(error.blames_provider),
            )


def _descendants(error: type[errors.GatewayError]) -> Iterator[type[errors.GatewayError]]:
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from _descendants(child)


def permission_rows(*tables: Mapping[str, tuple[str, frozenset[str]]]) -> Iterator[Sequence[str]]:
    roles = [(name, permissions) for table in tables for name, (_, permissions) in table.items()]
    first = len(tables[0])
    yield "permission", *(name if place < first else f"{name} of a team" for place, (name, _) in enumerate(roles))
    for permission in sorted(_permissions()):
        if any(permission in permissions for _, permissions in roles):
            yield f"`{permission}`", *(_mark(permission in permissions) for _, permissions in roles)


def _permissions() -> Iterator[str]:
    """Of our own apps, and Django's over people."""
    for model in apps.get_models():
        config = apps.get_app_config(model._meta.app_label)
        if (ROOT / config.name.partition(".")[0]).is_dir() or config.label == "auth":
            codenames = [f"{verb}_{model._meta.model_name}" for verb in model._meta.default_permissions]
            codenames += [codename for codename, _ in model._meta.permissions]
            yield from (f"{model._meta.app_label}.{codename}" for codename in codenames)


def _mark(holds: bool) -> str:
    return "✓" if holds else ""


def _table(rows: Iterator[Sequence[str]]) -> str:
    head, *rest = [f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in row)} |" for row in rows]
    return "\n".join([head, "|---" * (head.count(" | ") + 1) + "|", *rest]) + "\n"


def main(arguments: list[str]) -> int:
    if arguments == ["--write"]:
        PAGE.write_text(page())
    else:
        print(page())
    return 0


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    sys.exit(main(sys.argv[1:]))
