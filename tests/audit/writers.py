"""Eight threads that change rows at once. As a program: on a new SQLite file in LLM_STATE_DIR, shared as processes share it."""

from __future__ import annotations

import json
import threading

WRITERS, TURNS = 8, 5
ROWS = 1 + WRITERS * TURNS * 2


def hammer() -> list[str]:
    """What went wrong. The threads lock one row first and the chain after it, each in turn."""
    from django.db import connections, transaction

    from access.models import Team

    Team.objects.create(name="shared")
    failures: list[str] = []

    def write(number: int) -> None:
        try:
            for turn in range(TURNS):
                with transaction.atomic():
                    Team.objects.create(name=f"team {number} {turn}")
                    shared = Team.objects.select_for_update().get(name="shared")
                    shared.max_concurrency = number * 10 + turn + 1
                    shared.save()
        except BaseException as exc:
            failures.append(repr(exc))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return failures


def main() -> None:
    import django

    django.setup()
    from django.core.management import call_command

    from monitoring.audit_checkpoints import verify

    call_command("migrate", verbosity=0)
    before = verify().rows
    failures = hammer()
    found = verify()
    print(json.dumps({"failures": failures, "rows": found.rows - before, "bad": found.bad, "covered": found.covered - before}))


if __name__ == "__main__":
    main()
