"""Types that several threads read into are known before the first of them does."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.live import ROOT

# In a process of its own: the one that is not known ends by a segmentation fault.
RACE = """
import sys, threading
import msgspec
from core.shapes import known

sys.setswitchinterval(1e-6)

def race(kind):
    together = threading.Barrier(4)
    def read():
        together.wait()
        msgspec.convert({"f1": "a", "f29": "b", "inner": {"x0": 1}}, kind)
    threads = [threading.Thread(target=read) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]

for number in range(400):
    inner = msgspec.defstruct("Inner", [(f"x{field}", int, 0) for field in range(5)])
    kind = msgspec.defstruct("Outer", [*((f"f{field}", str | None, None) for field in range(30)), ("inner", inner | None, None)])
    if sys.argv[1] == "known":
        known(kind)
    race(kind)
"""


def test_threads_read_what_is_known():
    done = subprocess.run([sys.executable, "-c", RACE, "known"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


SUBMITTED = """
import sys, threading
import django

django.setup()
from tasks.kinds import KINDS
from tasks.service import Submission
import msgspec

sys.setswitchinterval(1e-6)
together = threading.Barrier(8)

def read():
    together.wait()
    for kind in (Submission, *(each.data for each in KINDS.values())):
        try:
            msgspec.convert({"type": "custom", "config": {}}, kind)
        except msgspec.ValidationError:
            pass

threads = [threading.Thread(target=read) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_tasks_are_submitted_at_once_to_a_process_that_has_just_started():
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    done = subprocess.run([sys.executable, "-c", SUBMITTED], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
