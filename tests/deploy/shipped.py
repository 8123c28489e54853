"""What deploy/ and the Dockerfile hold, read."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
IMAGE = f"llmcontrol:{VERSION}"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
MANIFESTS: list[dict[str, Any]] = [
    each for path in sorted((DEPLOY / "k8s").glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())
]


class Pod(NamedTuple):
    """`name`: of the workload it belongs to."""

    name: str
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def container(self) -> dict[str, Any]:
        (only,) = self.spec["containers"]
        return only


PODS = [
    Pod(each["metadata"]["name"], each["spec"]["template"]["metadata"]["labels"], each["spec"]["template"]["spec"])
    for each in MANIFESTS
    if "template" in each.get("spec", {})
]
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"] == IMAGE}


def manifest(kind: str) -> dict[str, Any]:
    """The only one of its kind."""
    (found,) = (each for each in MANIFESTS if each["kind"] == kind)
    return found


def dockerfile() -> list[tuple[str, str]]:
    """(instruction, its arguments), with continued lines joined and comments left out."""
    text = re.sub(r"\\\n", " ", "\n".join(line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")))
    return [(word, rest.strip()) for word, _, rest in (line.strip().partition(" ") for line in text.splitlines() if line.strip())]


def unit(path: Path) -> dict[str, list[str]]:
    """Values by name; a name may be there more than once."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def commands() -> Iterator[tuple[str, list[str]]]:
    """(where it stands, what follows manage.py) of every command that anything runs, comments included."""
    for word, rest in dockerfile():
        if word == "CMD":
            yield "Dockerfile", json.loads(rest)
    for name, service in OURS.items():
        if "command" in service:
            yield f"compose {name}", service["command"]
    for pod in PODS:
        yield f"k8s {pod.name}", pod.container["command"]
    for path in UNITS:
        for name in ("ExecStartPre", "ExecStart"):
            for line in unit(path).get(name, []):
                yield f"{path.name} {name}", shlex.split(line)
    for path in [ROOT / "Dockerfile", *DEPLOY.rglob("*.yaml")]:
        for said in re.findall(r"^#.*python (manage\.py [a-z_ -]+)", path.read_text(), re.MULTILINE):
            yield f"a comment of {path.name}", said.split()


def environments() -> Iterator[tuple[str, dict[str, str]]]:
    """(where it stands, variables) of every process of ours."""
    words: dict[str, str] = {}
    for word, rest in dockerfile():
        if word == "ENV":
            words |= dict(each.split("=", 1) for each in shlex.split(rest))
    yield "Dockerfile", words
    for name, service in OURS.items():
        yield f"compose {name}", service["environment"]
    shared = manifest("ConfigMap")["data"]
    for pod in PODS:
        yield f"k8s {pod.name}", shared | {each["name"]: each.get("value", "") for each in pod.container.get("env", [])}
    for path in UNITS:
        yield path.name, dict(each.split("=", 1) for line in unit(path)["Environment"] for each in shlex.split(line))
