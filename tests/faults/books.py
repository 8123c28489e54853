"""`manage.py ledger_check` on the database of each stage, by one process for all of a run: starting one takes a second."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO

from tests.faults.backends import SECRETS, Services
from tests.faults.processes import bound, clean_environment
from tests.live import ROOT


class Books:
    """`checked`: how many stages balanced."""

    def __init__(self) -> None:
        self.checked = 0
        self._process: subprocess.Popen[str] | None = None

    def difference(self, services: Services) -> str:
        """The first one, in a sentence; "" = all sums agree. Raises AssertionError where the command itself does not work."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(services.env["DATABASE_URL"] + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            self._process = None  # the next stage gets a new one
            raise AssertionError(f"ledger_check ended with {process.wait()}")
        found = json.loads(line)
        self.checked += not found
        return str(found)

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate(timeout=60)

    def _start(self) -> subprocess.Popen[str]:
        env = clean_environment(**SECRETS, DATABASE_URL="sqlite:///:memory:", DJANGO_SETTINGS_MODULE="llmcontrol.settings")
        command = bound([sys.executable, "-m", "tests.faults.books"])
        self._process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self._process


def _answer(url: str) -> str:
    """Django must be set up. Raises what the database raises."""
    import dj_database_url
    from django.core.management import CommandError, call_command
    from django.db import connections

    connections["default"].close()
    del connections["default"]
    connections.settings["default"] = connections.configure_settings({"default": dj_database_url.parse(url)})["default"]
    try:
        call_command("ledger_check", stdout=StringIO())
    except CommandError as found:
        return str(found)
    return ""


def main() -> None:
    import django

    django.setup()
    for line in sys.stdin:
        print(json.dumps(_answer(line.strip())), flush=True)


if __name__ == "__main__":
    main()
