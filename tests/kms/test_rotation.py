"""From a KEK of our own to Vault's, to AWS', and back: killed midway and begun again, while a serving process reads."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kms.conftest import Service
from tests.services.test_rotate_kek_live import (
    NEW,
    OLD,
    READ,
    SECRETS,
    Installation,
    ended,
    installation,  # noqa: F401  (a fixture)
    keks,
    lines_until,
)

pytestmark = pytest.mark.process


@pytest.mark.parametrize("installation", ["postgres"], indirect=True)
def test_to_vault_to_aws_and_back(installation: Any, vault: Service, aws: Service) -> None:  # noqa: F811
    made: Installation = installation
    made.env |= vault.env | aws.env
    old, at_vault, at_aws, new = keks(_1=OLD), f"2:{vault.reference}", f"3:{aws.reference}", keks(_4=NEW)
    for before, after in ((old, at_vault), (at_vault, at_aws), (at_aws, new)):
        made.env["KEY_ENCRYPTION_KEYS"] = f"{before},{after}"
        rotate_killed_and_begun_again(made, before, after)
    made.env["KEY_ENCRYPTION_KEYS"] = new
    alone = made.begin("shell", "-v", "0", "-c", READ % SECRETS)
    assert lines_until(alone, 1) == ["1\n"]
    ended(alone)


def rotate_killed_and_begun_again(made: Installation, before: str, after: str) -> None:
    old, new = int(before.partition(":")[0]), int(after.partition(":")[0])
    reader = made.begin("shell", "-v", "0", "-c", READ % SECRETS)
    assert lines_until(reader, 1) == ["1\n"]
    killed = made.begin("rotate_kek", "--batch", "20")
    assert lines_until(killed, 8)[0].startswith("0 re-sealed")
    killed.kill()
    killed.communicate()
    assert made.ids() == {old, new}
    done = made.run("rotate_kek")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"nothing is left on key {old}" in done.stdout
    assert made.ids() == {new}
    assert int(ended(reader).splitlines()[-1]) > 1, "the reader saw no version but the first"


@pytest.mark.parametrize("installation", ["sqlite"], indirect=True)
def test_a_service_that_goes_away_stops_the_command_and_loses_nothing(installation: Any, vault: Service) -> None:  # noqa: F811
    made: Installation = installation
    made.env |= vault.env | {"KEY_ENCRYPTION_KEYS": f"{keks(_1=OLD)},2:{vault.reference}", "KEK_TIMEOUT_S": "0.5"}
    command = made.begin("rotate_kek", "--batch", "20")
    lines_until(command, 3)
    vault.freeze()
    try:
        _, complained = command.communicate(timeout=60)
    finally:
        vault.thaw()
    assert command.returncode == 1
    assert "Stopped: key-encryption key llmcontrol is at Vault" in complained
    assert "Nothing is lost; run this command again" in complained
    assert made.ids() == {1, 2}
    assert made.run("rotate_kek").returncode == 0
    assert made.ids() == {2}
