"""A50: no secret is in the repository or the image. That importing opens nothing: tests/e2e/test_import.py."""

from __future__ import annotations

import base64
import math
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What vendors' and programs' secrets look like when they are real.
FORMS = {
    "private key": r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{200,}",
    "OpenAI": r"\bsk-(?:proj-|svcacct-)?[A-Za-z0-9_-]{20,}T3BlbkFJ[A-Za-z0-9_-]{20,}",
    "Anthropic": r"\bsk-ant-(?:api|admin)\d\d-[A-Za-z0-9_-]{80,}",
    "Google": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "AWS": r"\bAKIA[0-9A-Z]{16}\b",
    "GitHub": r"\bgh[pousr]_[A-Za-z0-9]{36,}\b",
    "Slack": r"\bxox[abprs]-[0-9]{10,}-[0-9A-Za-z-]{20,}",
    "our API key": r"\bsk-llmc-[A-Za-z0-9_-]{40,}",
    "our token": r"\bllmc-pat-[A-Za-z0-9_-]{40,}",
    "settings.env": r"^(?:SECRET_KEY|API_KEY_PEPPER)=[A-Za-z0-9_-]{40,}$",
    "key-encryption key": r"\bKEY_ENCRYPTION_KEYS=[\"']?\d{1,3}:[A-Za-z0-9+/]{43}=",
}


def bits(text: str) -> float:
    """Entropy of a character: a placeholder of repeated letters has little."""
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())


def secrets_in(text: str) -> list[str]:
    return [f"{name}: {match[0][:12]}…" for name, form in FORMS.items() for match in re.finditer(form, text, re.M) if bits(match[0]) > 3]


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this is no git repository")
    return [ROOT / name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_tracked_file_holds_one() -> None:
    found = {str(path.relative_to(ROOT)): here for path in tracked() if (here := secrets_in(path.read_text(errors="replace")))}
    assert found == {}


def test_nothing_is_tracked_that_holds_state_or_secrets() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in tracked()}
    assert "manage.py" in names
    suspicious = re.compile(r"(^|/)(var/|settings\.env$|\.env$|id_rsa|.*\.(pem|key|p12|sqlite3|journal)$)")
    assert {name for name in names if suspicious.search(name) and not name.startswith("tests/")} == set()


def test_the_image_leaves_them_out() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", "var", "*.env", "**/*.sqlite3*", "tests"} <= set(ignored)


def test_the_forms_find_real_ones() -> None:
    random = base64.b64encode(bytes(range(7, 250, 3)) * 3).decode()
    letters = re.sub(r"[^A-Za-z0-9]", "", random)
    for text in (
        "AK" + "IA" + "J7Q2M4N8P1R5T9V3",
        "gh" + "p_" + letters[:36],
        "sk-" + "llmc-" + letters[:43],
        "SECRET_KEY" + "=" + letters[:48],
        "KEY_ENCRYPTION_KEYS" + "=1:" + letters[:43] + "=",
        "sk-" + "ant-api03-" + letters[:95],
    ):
        assert secrets_in(text), text[:14]
    assert secrets_in("SECRET_KEY=" + "x" * 48) == []
