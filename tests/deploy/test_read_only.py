"""What the image promises: everything read-only but the state folder, /tmp and /dev/shm, and no capabilities. Shown on this machine's own
files, in a mount namespace, because a container engine may not be at hand."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import wire
from tests.faults.processes import bound, clean_environment, free_port, until
from tests.live import ROOT, alive, children_of
from tests.security.test_a35_deployment import SECRETS

pytestmark = pytest.mark.process
# Mounts that other programs have stay as they are: the namespace is its own.
ALONE = ["unshare", "--mount", "--propagation", "private"]
READ_ONLY = """
set -e
mount --bind "$0" /mnt
mkdir -p /mnt/state /mnt/tmp
mount -o remount,ro,bind /
exec setpriv --bounding-set -all --inh-caps -all --no-new-privs "$@"
"""


def command(folder: Path, *arguments: str) -> list[str]:
    return [*ALONE, "sh", "-c", READ_ONLY, str(folder), *arguments]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """To be mounted. Skips where this user may not mount."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can make a mount namespace")
    done = subprocess.run(command(tmp_path, "true"), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no read-only namespace here: {done.stderr[-200:]}")
    return tmp_path


@pytest.fixture
def serving(folder: Path) -> Iterator[str]:
    """Its address, with two workers."""
    port = free_port()
    env = clean_environment(
        **SECRETS,
        LLM_STATE_DIR="/mnt/state",
        TMPDIR="/mnt/tmp",
        HOME="/nonexistent",
        PYTHONDONTWRITEBYTECODE="1",
        LLM_DRAIN_INTERVAL_S="0.1",
    )
    manage = [sys.executable, str(ROOT / "manage.py")]
    done = subprocess.run(command(folder, *manage, "migrate", "-v", "0"), env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    url, log = f"http://127.0.0.1:{port}", folder / "serve.log"
    with log.open("wb") as output:
        serve = [*manage, "serve", "--port", str(port), "--workers", "2"]
        process = subprocess.Popen(bound(command(folder, *serve)), env=env, stdout=output, stderr=output)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            return wire.call(url, "GET", "/ready", timeout_s=2).status == 200
        except OSError:
            return False

    try:
        until(ready, "the server is ready", timeout_s=120)
        yield url
    finally:
        for pid in [process.pid, *children_of(process.pid)]:
            if alive(pid):
                os.kill(pid, 9)
        process.wait(10)


def test_the_root_is_read_only_there(folder: Path) -> None:
    done = subprocess.run(command(folder, "touch", str(ROOT / "written")), capture_output=True, text=True, check=False)
    assert "Read-only file system" in done.stderr
    assert not (ROOT / "written").exists()


def test_it_serves_from_a_read_only_root_without_capabilities(serving: str, folder: Path) -> None:
    page = wire.call(serving, "GET", "/admin/login/")
    assert page.status == 200
    assert b"csrfmiddlewaretoken" in page.body
    assert wire.call(serving, "GET", "/static/llmcontrol/admin.css").status == 200
    assert wire.call(serving, "POST", "/v1/chat/completions", body={"model": "none", "messages": []}, key="sk-llmc-none").status == 401
    made = {path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.is_file()}
    assert made <= {"state", "serve.log", "tmp"}
