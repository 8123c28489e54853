"""F47 and F48: keys change under load, the vendor's and those that seal them, and no client notices."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from core.secrets import sealed_under
from tests.faults.backends import SECRETS
from tests.faults.history import History
from tests.faults.judge import Judge
from tests.faults.loads import FULL, Load, LoadSize
from tests.faults.machine import Machine
from tests.faults.processes import clean_environment
from tests.faults.stage import Stage
from tests.live import ROOT

MODEL = "ok@tokens=10,delay=0.02"
OLD, NEW = "sk-planted-old-0123456789abcdef", "sk-planted-new-0123456789abcdef"
OLD_KEK = SECRETS["KEY_ENCRYPTION_KEYS"]
NEW_KEK = "2:" + base64.b64encode(b"planted-newer-key-encryption-key"[:32]).decode()
BATCH_ROWS = 50
# Vendors' keys that nobody asks for, beside the one that does the work: `count` of them, in one transaction.
FILL = """
from providers.models import *
provider = Provider.objects.create(name="idle", provider_type="openai_compatible", base_url="https://vendor.example/v1")
keys = [ProviderKey(provider=provider) for _ in range({count})]
for key in keys:
    key.seal("sk-planted-idle")
ProviderKey.objects.bulk_create(keys, batch_size=500)
"""


def test_f47_a_second_key_takes_over_from_the_first(stage: Stage, size: LoadSize, judge: Judge) -> None:
    """The vendor withdraws the old key before anybody has told us: its 401 sends the call to the other one."""
    provider = stage.provider(keys=[OLD])
    stage.secrets.append(NEW)
    stage.vendor.control(keys=[OLD])
    load = stage.load(stage.model(MODEL, provider=provider), size)
    load.wait_until(size.seconds * 0.2)
    stage.vendor.control(keys=[OLD, NEW])
    path = f"/api/v1/llm/providers/{provider['id']}/keys"
    stage.control.call("POST", path, {"api_key": NEW})
    stage.apply()
    load.wait_until(size.seconds * 0.45)
    stage.vendor.control(keys=[NEW])
    load.wait_until(size.seconds * 0.45 + 1.5)
    alert = resting_keys(stage, provider["name"])
    load.wait_until(size.seconds * 0.75)
    stage.control.call("DELETE", f"{path}/{provider['keys'][0]['id']}")
    history = load.history()
    judge_rotation(stage, history, judge, "the vendor withdraws the old key first")
    judge("F47", "withdrawn key shown as resting", len(alert), at_least=1, why=str(alert))
    calls = Counter((call.key, call.status) for call in stage.vendor.ledger())
    # What was on its way together fails together; after that the key rests.
    judge("F47", "calls with the withdrawn key ÷ clients", calls[OLD, 401] / size.clients, at_most=1, unit="×", why=str(calls))
    assert calls[OLD, 401], "the withdrawn key met nobody: this proves nothing"
    assert calls[NEW, 200] > size.clients


def test_f47_one_key_is_replaced_in_place(stage: Stage, size: LoadSize, judge: Judge) -> None:
    """The vendor takes both for a while, as vendors do when a key is rotated there."""
    provider = stage.provider(keys=[OLD])
    stage.secrets.append(NEW)
    stage.vendor.control(keys=[OLD])
    load = stage.load(stage.model(MODEL, provider=provider), size)
    load.wait_until(size.seconds * 0.3)
    stage.vendor.control(keys=[OLD, NEW])
    path = f"/api/v1/llm/providers/{provider['id']}/keys/{provider['keys'][0]['id']}/rotate"
    stage.control.call("POST", path, {"api_key": NEW})
    stage.apply()
    stage.vendor.control(keys=[NEW])
    history = load.history()
    judge_rotation(stage, history, judge, "replaced in place")
    assert {call.key for call in stage.vendor.ledger()} == {OLD, NEW}


def judge_rotation(stage: Stage, history: History, judge: Judge, how: str) -> None:
    figures = stage.check(history)
    judge("F47", f"client-visible 401 or 502, {how}", len(history.failed) + figures.lost, at_most=0, why=figures.explain())
    judge("F47", "USE_LOST", figures.use_lost, at_most=0, why=figures.explain())
    judge("F47", "DUP", figures.dup, at_most=0, why=figures.explain())


def resting_keys(stage: Stage, name: str) -> list[dict[str, Any]]:
    """What an administrator sees of a key that the vendor refuses."""
    status = stage.control.call("GET", f"/api/v1/providers/{name}/status")
    return [key for key in status["keys"] if key["state"] == "resting" and key["rests"][0]["reason"]]


def test_f48_the_key_encryption_key_changes_under_load(new_stage: Callable[..., Stage], size: LoadSize, judge: Judge) -> None:
    """The steps of docs/secrets.md on two machines; the command is killed in the middle and begun again."""
    stage = new_stage(workers=1, machines=2)
    secrets = 10_000 if size == FULL else 1_000
    manage(stage.machine, "shell", "-v", "0", "-c", FILL.format(count=secrets - 1))
    stage.secrets.append(OLD)
    stage.vendor.control(keys=[OLD])
    alias = stage.model(MODEL, provider=stage.provider(keys=[OLD]))
    histories = [with_keys(stage, alias, size, f"{OLD_KEK},{NEW_KEK}")]
    load = stage.load(alias, size._replace(seconds=60))
    load.wait_until(1)
    killed_at = kill_in_the_middle(stage.machine)
    halfway = ids_of_keys(stage)
    manage(stage.machine, "rotate_kek", "--batch", str(BATCH_ROWS * 10))
    stage.apply()
    load.wait_until(size.fault_until_s)
    load.stop()
    histories += [load.history(), with_keys(stage, alias, size, NEW_KEK)]
    history = sum(histories, History())
    figures = stage.check(history)
    assert set(halfway) == {1, 2}, f"killed after {killed_at!r}, with {halfway}"
    left = ids_of_keys(stage)
    judge("F48", "secrets", left.total(), at_least=secrets)
    judge("F48", "failed requests", len(history.failed) + figures.lost, at_most=0, why=figures.explain())
    judge("F48", "secrets left on the old key", left.total() - left[2], at_most=0)
    judge("F48", "USE_LOST", figures.use_lost, at_most=0, why=figures.explain())
    judge("F48", "DUP", figures.dup, at_most=0, why=figures.explain())


def with_keys(stage: Stage, alias: str, size: LoadSize, kek: str) -> History:
    """One machine after the other is started again with these keys, while the other one serves."""
    history = History()
    for restarted, serving in (stage.machines, stage.machines[::-1]):
        load: Load = stage.load(alias, size._replace(seconds=60), machines=[serving])
        restarted.env["KEY_ENCRYPTION_KEYS"] = kek
        restarted.restart()
        load.stop()
        history += load.history()
    return history


def kill_in_the_middle(machine: Machine) -> str:
    """SIGKILL once it has said that it got on. Returns what it said last."""
    command = [sys.executable, "manage.py", "rotate_kek", "--batch", str(BATCH_ROWS)]
    with subprocess.Popen(command, cwd=ROOT, env=clean_environment(**machine.env), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(4)]
        process.kill()
    return said[-1]


def manage(machine: Machine, *arguments: str) -> None:
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(**machine.env), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def ids_of_keys(stage: Stage) -> Counter[int]:
    """How many secrets are sealed under which key."""
    return Counter(sealed_under(bytes(secret)) for (secret,) in stage.database.rows("SELECT secret FROM providers_providerkey"))
