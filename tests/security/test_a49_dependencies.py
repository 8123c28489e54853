"""A49: what is installed is what was locked, and nothing else runs when Python starts."""

from __future__ import annotations

import re
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LISTS = sorted(ROOT.glob("requirements*.txt"))
INSTALLED = {distribution.metadata["Name"].lower().replace("_", "-"): distribution for distribution in metadata.distributions()}

# Below these versions there is a published vulnerability that concerns what we use of it.
FLOORS = {
    "anyio": "4.4.0",  # a race in TLS handshakes
    "certifi": "2024.7.4",  # CVE-2024-39689
    "cryptography": "44.0.1",  # CVE-2024-12797
    "django": "5.2.8",  # CVE-2025-64459: SQL injection by `_connector`
    "djangorestframework": "3.15.2",  # CVE-2024-21520
    "h11": "0.16.0",  # CVE-2025-43859: chunked bodies
    "idna": "3.7",  # CVE-2024-3651
    "jinja2": "3.1.6",  # CVE-2025-27516
    "protobuf": "5.29.5",  # CVE-2025-4565
    "pyjwt": "2.10.1",  # CVE-2024-53861
    "requests": "2.32.4",  # CVE-2024-47081: .netrc to another host
    "setuptools": "78.1.1",  # CVE-2025-47273
    "sqlparse": "0.5.0",  # CVE-2024-4340
    "twisted": "24.7.0",  # CVE-2024-41671
    "urllib3": "2.6.0",  # CVE-2025-66418, -66471: decompression without bound
    "uvicorn": "0.11.7",  # CVE-2020-7694, -7695
    "werkzeug": "3.1.4",  # CVE-2025-66221
    "aiohttp": "3.13.3",  # CVE-2025-69223 and others
}
# Each may run code whenever Python starts: the file, and why it is there.
PTH = {"distutils-precedence.pth": "setuptools: its own distutils"}


def locked(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Name → its line without hashes, and the hashes."""
    found = {}
    for entry in re.split(r"\n(?=\S)", path.read_text()):
        if not entry.startswith("#"):
            line, *hashes = re.split(r"\s+(?:\\\s+)?--hash=", entry.strip().removesuffix("\\"))
            name = Requirement(line.rstrip(" \\")).name.lower()
            found[name] = (line.rstrip(" \\"), [each.rstrip(" \\") for each in hashes])
    return found


def too_old(name: str, version: str) -> bool:
    return name in FLOORS and Version(version) < Version(FLOORS[name])


def test_there_is_a_list_for_each_source() -> None:
    sources = {path.with_suffix(".txt").name for path in (ROOT / "requirements").glob("*.in")}
    assert {path.name for path in LISTS} == sources >= {"requirements.txt", "requirements-dev.txt", "requirements-extra.txt"}


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.name)
def test_every_line_names_one_version_and_its_hashes(path: Path) -> None:
    entries = locked(path)
    assert entries
    for name, (line, hashes) in entries.items():
        specifiers = list(Requirement(line).specifier)
        assert [each.operator for each in specifiers] == ["=="], line
        assert hashes, f"{name} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), name
        assert not too_old(name, specifiers[0].version), f"{line}: at least {FLOORS[name]}"


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.name)
def test_a_list_holds_what_its_source_asks_for(path: Path) -> None:
    entries = locked(path)
    for line in (ROOT / "requirements" / path.with_suffix(".in").name).read_text().splitlines():
        if line and not line.startswith(("#", "-r")):
            wanted = Requirement(line)
            version = next(iter(Requirement(entries[wanted.name.lower()][0]).specifier)).version
            assert wanted.specifier.contains(version), f"{line} is locked at {version}: make lock"


def test_no_list_says_where_from() -> None:
    for path in LISTS:
        assert not re.search(r"^\s*-|://|\bfile:", path.read_text().replace("--hash", ""), re.MULTILINE), path.name


def test_every_place_that_installs_asks_for_hashes_and_wheels() -> None:
    """So an altered file is refused, and no package runs code of its own while it is installed."""
    for name in ("Makefile", "Dockerfile"):
        for line in (ROOT / name).read_text().splitlines():
            if "pip install" in line and not line.lstrip().startswith("#"):
                assert "--require-hashes --only-binary :all:" in line, line


def test_what_is_installed_is_above_the_floors_and_of_the_locked_version() -> None:
    entries = locked(ROOT / "requirements-dev.txt")
    assert len(INSTALLED.keys() & entries.keys()) > 90
    differing = []
    for name in INSTALLED.keys() & entries.keys():
        version = INSTALLED[name].version
        assert not too_old(name, version)
        if not Requirement(entries[name][0]).specifier.contains(version):
            differing.append(f"{name} {version}, locked: {entries[name][0]}")
    assert differing == []


def test_a_floor_is_a_floor() -> None:
    assert too_old("django", "5.2.7")
    assert not too_old("django", "5.2.8")
    assert not too_old("unheard-of", "0")


def test_nothing_unknown_runs_when_python_starts() -> None:
    folder = Path(sysconfig.get_path("purelib"))
    assert folder.is_relative_to(sys.prefix)
    assert {path.name for path in folder.glob("*.pth")} <= PTH.keys()
    assert not (folder / "sitecustomize.py").exists()
    assert not (folder / "usercustomize.py").exists()
