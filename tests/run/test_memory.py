"""What large answers leave behind goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llmcontrol import memory
from tests.live import ROOT

# In a process of its own: what else this one has allocated and freed decides what lies between.
HOLES = """
import os
from pathlib import Path
from llmcontrol.memory import trim

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20

kept = []
pieces = []
for _ in range(1000):
    pieces.append(bytes(65_000))
    kept.append(bytes(2_000))
pieces.clear()
before = resident_mb()
assert trim()
print(before - resident_mb())
assert not trim(64 * 2**30)
"""


@pytest.mark.skipif(memory._glibc() is None, reason="not glibc: the C library gives memory back by itself, or never")
def test_pieces_between_what_lives_on_go_back():
    done = subprocess.run([sys.executable, "-c", HOLES], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 30
