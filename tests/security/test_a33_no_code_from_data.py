"""A33: data never becomes code or objects: not in our code, and not by a cache or session of Django's that pickles."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.utils import timezone

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("core", "monitoring", "providers", "models_registry", "access", "gateway", "llmcontrol")
MODULES = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "yaml"}
CALLS = {"eval", "exec", "compile", "__import__"}


def found_in(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").partition(".")[0]} & MODULES
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found |= {node.func.id} & CALLS
    return found


def test_no_module_of_the_product_makes_code_or_objects_of_data() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert len(files) > 150
    assert {str(path.relative_to(ROOT)): found for path in files if (found := found_in(path.read_text()))} == {}


@pytest.mark.parametrize("source", ["import pickle", "from yaml import load", "import marshal as m", "eval('1')", "def f():\n exec(x)"])
def test_what_is_looked_for_is_found(source: str) -> None:
    assert found_in(source)


def test_no_cache_of_django_that_pickles_is_set_up() -> None:
    """The file, database and Redis caches would; the only one is Django's default, in the memory of the process."""
    assert {cache["BACKEND"] for cache in settings.CACHES.values()} == {"django.core.cache.backends.locmem.LocMemCache"}
    assert settings.SESSION_SERIALIZER == "django.contrib.sessions.serializers.JSONSerializer"
    assert {layer["BACKEND"] for layer in settings.CHANNEL_LAYERS.values()} == {"channels.layers.InMemoryChannelLayer"}


class Trap:
    sprung = False

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return setattr, (Trap, "sprung", True)


@pytest.mark.django_db
def test_a_pickle_planted_as_a_session_is_no_session() -> None:
    planted = pickle.dumps(Trap())
    assert not Trap.sprung
    for data in (planted.decode("latin-1"), planted.hex(), "gASVJQAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAR0cnVllIWUUpQu"):
        Session.objects.update_or_create(
            session_key="k" * 32, defaults={"session_data": data, "expire_date": timezone.now().replace(year=2099)}
        )
        assert SessionStore("k" * 32).load() == {}
    assert not Trap.sprung
    pickle.loads(planted)  # noqa: S301 (so that the trap is one)
    assert Trap.sprung
