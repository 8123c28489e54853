"""F16: a migration runs while the gateway serves: columns and an index more, which the running code knows nothing of."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.faults.judge import Judge
from tests.faults.loads import LoadSize
from tests.faults.processes import clean_environment
from tests.faults.stage import Stage
from tests.live import ROOT

OLD_RECORDS = 100_000  # so that an index takes its time
LONGEST_LOCK_S = 1.0
USUAL_CHANGES = 10
APPS = ("monitoring", "models_registry")
SETTINGS = """
from llmcontrol.settings import *
MIGRATION_MODULES = {app: f"throwaway.{app}" for app in %r}
"""
# A package that has the app's own migrations, and one more.
PACKAGE = """
import importlib
__path__ = [*__path__, *importlib.import_module("{app}.migrations").__path__]
"""
MIGRATION = """
from django.db import migrations, models
from monitoring.migration_steps import AddColumn

class Migration(migrations.Migration):
    dependencies = [("{app}", "{last}")]
    operations = [
        AddColumn("{model}", "throwaway", models.CharField(max_length=40, null=True)),
        AddColumn("{model}", "counted", models.IntegerField(db_default=0)),
        migrations.AddIndex("{model}", models.Index(fields=["{column}", "counted"], name="throwaway_{app}")),
    ]
"""
FILL = """
from datetime import timedelta
from django.utils import timezone
from monitoring.models import UsageRecord
then = timezone.now() - timedelta(days=2)
names = {"provider_id": "p", "provider_name": "old", "alias": "old", "model_id": "old", "status": "ok", "usage_source": "none"}
rows = [UsageRecord(request_id=f"old_{n}", attempt=1, started_at=then, **names) for n in range(%d)]
UsageRecord.objects.bulk_create(rows, batch_size=500)
"""


def test_f16_a_migration_while_serving(stage: Stage, size: LoadSize, judge: Judge, tmp_path: Path) -> None:
    """An administrator changes a limit again and again meanwhile: how long that takes at most is how long a lock is held."""
    manage(stage, "shell", "-v", "0", "-c", FILL % OLD_RECORDS)
    manage(stage, "rebuild_rollups")
    alias = stage.model("ok@tokens=20,delay=0.02")
    key = stage.api_key()
    load = stage.load(alias, size, key=key["key"])
    load.wait_until(size.fault_at_s)
    usual_s = max(change_s(stage, key["id"], 99_000 + number) for number in range(USUAL_CHANGES))
    took_s: list[float] = []
    with begin(stage, throwaway(tmp_path)) as migration:
        while migration.poll() is None:
            took_s.append(change_s(stage, key["id"], 100_000 + len(took_s)))
        assert migration.returncode == 0, migration.communicate()[0]
    history = load.history()
    figures = stage.check(history)
    assert stage.database.rows("SELECT count(*) FROM monitoring_usagerecord WHERE counted = 0")[0][0] > OLD_RECORDS
    stage.apply()
    in_force = stage.ask(alias, key=key["key"])
    judge("F16", "failed requests", len(history.failed) + figures.lost, at_most=0, why=figures.explain())
    why = f"usual {usual_s:.3f}, then {[round(took, 2) for took in took_s]}"
    judge(
        "F16", "longest lock, beside what an administrator's change takes", max(took_s) - usual_s, at_most=LONGEST_LOCK_S, unit="s", why=why
    )
    judge("F16", "changes lost", int(in_force.headers["x-ratelimit-limit-requests"] != str(100_000 + len(took_s) - 1)), at_most=0)
    judge("F16", "USE_LOST", figures.use_lost, at_most=0, why=figures.explain())
    judge("F16", "DUP", figures.dup, at_most=0, why=figures.explain())


def change_s(stage: Stage, key_id: str, limit: int) -> float:
    began = time.monotonic()
    stage.control.call("PATCH", f"/api/v1/llm/keys/{key_id}", {"rate_limit": {"requests_per_minute": limit}})
    return time.monotonic() - began


def throwaway(folder: Path) -> Path:
    """Settings with one migration more for each of APPS: of the ledger, and of a table that the configuration is read from."""
    (folder / "throwaway").mkdir()
    (folder / "throwaway" / "__init__.py").touch()
    (folder / "throwaway_settings.py").write_text(SETTINGS % (APPS,))
    for app, model, column in zip(APPS, ("usagerecord", "llmmodel"), ("team_id", "alias"), strict=True):
        last = sorted(path.stem for path in (ROOT / app / "migrations").glob("0*.py"))[-1]
        package = folder / "throwaway" / app
        package.mkdir()
        (package / "__init__.py").write_text(PACKAGE.format(app=app))
        (package / "9999_throwaway.py").write_text(MIGRATION.format(app=app, last=last, model=model, column=column))
    return folder


def begin(stage: Stage, folder: Path) -> subprocess.Popen[str]:
    env = clean_environment(**stage.machine.env, PYTHONPATH=str(folder), DJANGO_SETTINGS_MODULE="throwaway_settings")
    command = [sys.executable, "manage.py", "migrate", "-v", "0"]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def manage(stage: Stage, *arguments: str) -> None:
    command, env = [sys.executable, "manage.py", *arguments], clean_environment(**stage.machine.env)
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
