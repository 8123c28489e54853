"""The same tests of the trail, against PostgreSQL: locks, triggers and moments differ there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.gateway_config.test_postgres import BASE_DIR, SERVER, require_server

TESTS = ("tests/audit/test_capture.py", "tests/audit/test_chain.py", "tests/audit/test_not_writable.py")


@pytest.mark.process
@pytest.mark.skipif(os.environ.get("DATABASE_URL", "").startswith("postgres"), reason="already running against PostgreSQL")
def test_the_trail_on_postgres() -> None:
    require_server()
    environment = os.environ | {"DATABASE_URL": f"{SERVER}/llmcontrol_audit_{os.getpid()}"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--create-db", *TESTS]

    done = subprocess.run(command, cwd=BASE_DIR, env=environment, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert " passed" in done.stdout
