"""The same tests of configuration, ledger and upgrades, against PostgreSQL: triggers, one-moment reads and inserts differ there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

BASE_DIR = Path(__file__).resolve().parent.parent.parent
SERVER = os.environ.get("POSTGRES_TEST_URL", "postgres://postgres@127.0.0.1:5432")
TESTS = (
    "tests/gateway_config",
    "tests/monitoring/test_ledger.py",
    "tests/monitoring/test_draining.py",
    "tests/monitoring/test_replay.py",
    "tests/monitoring/test_accounts.py",
    "tests/services/test_upgrade.py",
)

# It has its own databases, on both engines, wherever it runs.
LEFT_OUT = "tests/gateway_config/test_budgets.py::test_four_processes_together_never_use_more_than_the_limit"


def require_server() -> None:
    try:
        psycopg.connect(f"{SERVER}/postgres", connect_timeout=2).close()
    except psycopg.OperationalError as exc:
        reason = f"no PostgreSQL at POSTGRES_TEST_URL ({SERVER.rpartition('@')[2]}): {exc}"
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.mark.process
@pytest.mark.skipif(os.environ.get("DATABASE_URL", "").startswith("postgres"), reason="already running against PostgreSQL")
def test_configuration_and_ledger_on_postgres() -> None:
    require_server()
    environment = os.environ | {"DATABASE_URL": f"{SERVER}/llmcontrol_{os.getpid()}"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--create-db", "--deselect", LEFT_OUT, *TESTS]

    done = subprocess.run(command, cwd=BASE_DIR, env=environment, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert " passed" in done.stdout
