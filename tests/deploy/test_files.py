"""The Dockerfile, deploy/compose.yaml, deploy/k8s and deploy/systemd against the product: what they start, set, ask and allow is there."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import get_commands, load_command_class

from tests.deploy.shipped import (
    COMPOSE,
    DEPLOY,
    IMAGE,
    MANIFESTS,
    OURS,
    PODS,
    ROOT,
    UNITS,
    commands,
    dockerfile,
    environments,
    manifest,
    unit,
)
from tests.e2e import wire
from tests.live import LiveServer, manage
from tests.run.test_configuration_page import rows
from tests.security.test_a35_deployment import SECRETS

NO_SETTINGS = {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "POD_IP"}
PORT = 8000
# For the journal to be drained once more, and the interpreter to end: docs/operations.md.
END_MARGIN_S = 10


@pytest.mark.parametrize(("where", "command"), list(commands()))
def test_every_command_is_one_of_manage_py_with_options_that_it_takes(where: str, command: list[str]) -> None:
    at = command.index("manage.py")
    name, options = command[at + 1], command[at + 2 :]
    assert name == "help" or name in get_commands(), f"{where}: there is no `manage.py {name}`"
    if name != "help":
        load_command_class(get_commands()[name], name).create_parser("manage.py", name).parse_args(options)


@pytest.mark.parametrize(("where", "variables"), list(environments()))
def test_every_variable_is_a_documented_setting(where: str, variables: dict[str, str]) -> None:
    assert {name.removesuffix("_FILE") for name in variables} - NO_SETTINGS <= rows().keys(), where
    secret = [name for name in variables if re.search("KEY|PEPPER|PASSWORD|DATABASE_URL", name)]
    assert all(name.endswith("_FILE") for name in secret), f"{where}: a secret stands in a file that is shared"


@pytest.mark.process
def test_the_settings_start_the_product_together(tmp_path: Path) -> None:
    """One process reads what all of them set; secrets are files elsewhere."""
    together: dict[str, str] = {}
    for _, variables in environments():
        together |= {name: value for name, value in variables.items() if not name.endswith("_FILE") and name not in NO_SETTINGS}
    env = {
        **together,
        **SECRETS,
        "LLM_STATE_DIR": str(tmp_path),
        "ALLOWED_HOSTS": together["ALLOWED_HOSTS"].replace("$(POD_IP)", "10.1.2.3"),
    }
    done = manage("check", env=env)
    assert done.returncode == 0, done.stderr


def test_images_are_pinned_and_ours_is_of_this_version() -> None:
    images = [service["image"] for service in COMPOSE["services"].values()] + [pod.container["image"] for pod in PODS]
    images += [rest.split()[0] for word, rest in dockerfile() if word == "FROM" and ":" in rest]
    assert len(OURS) == 5
    for image in images:
        name, _, tag = image.partition(":")
        assert tag != "latest", image
        assert re.search(r"\d", tag), image
        assert name != "llmcontrol" or image == IMAGE


# Dockerfile -----------------------------------------------------------------------------------------------------------


def test_the_image_runs_as_a_number_that_may_do_nothing() -> None:
    """A number: Kubernetes cannot tell that a name is not root."""
    stages: list[list[tuple[str, str]]] = []
    for word, rest in dockerfile():
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, rest))
    assert stages[-1] == [("FROM", "runtime")]
    for stage in stages[1:-1]:
        assert [rest for word, rest in stage if word == "USER"][-1] == "10001"


def test_the_dockerfile_keeps_to_the_usual_rules() -> None:
    words = dockerfile()
    assert not [rest for word, rest in words if word in ("ADD", "MAINTAINER") or "sudo" in rest.split()]
    assert all(rest.startswith("[") for word, rest in words if word in ("CMD", "ENTRYPOINT")), "exec form: signals reach Python"
    for _, rest in (each for each in words if "apt-get install" in each[1]):
        assert "--no-install-recommends" in rest
        assert "apt-get update" in rest
        assert "rm -rf /var/lib/apt/lists" in rest
    assert [rest for word, rest in words if word == "EXPOSE"] == [str(PORT)]
    (health,) = (rest for word, rest in words if word == "HEALTHCHECK" and rest != "NONE")
    assert f"http://127.0.0.1:{PORT}/ready" in health
    build = [rest for word, rest in words if word == "COPY" and "--from=build" in rest]
    assert len(build) == 2, "what only building needs stays behind"


def test_nothing_of_an_installation_is_copied_into_the_image() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv", "var", "tests", "secrets", "*.env", "**/*.sqlite3*"} <= set(ignored)


# Kubernetes -----------------------------------------------------------------------------------------------------------


def weaknesses(spec: dict[str, Any]) -> list[str]:
    """Of a pod's specification."""
    pod, (container,) = spec.get("securityContext", {}), spec["containers"]
    own, resources = container.get("securityContext", {}), container.get("resources", {})
    names = {volume["name"] for volume in spec.get("volumes", [])}
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    held = {
        "runs as root": pod.get("runAsNonRoot") is True and pod.get("runAsUser") == 10001,
        "no seccomp profile": pod.get("seccompProfile") == {"type": "RuntimeDefault"},
        "privileges may grow": own.get("allowPrivilegeEscalation") is False,
        "the root is writable": own.get("readOnlyRootFilesystem") is True,
        "capabilities are kept": own.get("capabilities", {}).get("drop") == ["ALL"],
        "memory has no limit": "memory" in resources.get("limits", {}) and "cpu" in resources.get("requests", {}),
        "it has a token of the cluster's": spec.get("automountServiceAccountToken") is False,
        "a mount has no volume": {mount["name"] for mount in container["volumeMounts"]} == names,
        "/state and /tmp are not all that is writable": writable == {"/state", "/tmp"},
    }
    return [what for what, holds in held.items() if not holds]


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod.name)
def test_a_pod_may_do_little(pod: Any) -> None:
    assert weaknesses(pod.spec) == []


@pytest.mark.parametrize(
    ("found", "weaken"),
    [
        ("runs as root", lambda spec: spec["securityContext"].pop("runAsNonRoot")),
        ("the root is writable", lambda spec: spec["containers"][0]["securityContext"].update(readOnlyRootFilesystem=False)),
        ("a mount has no volume", lambda spec: spec["volumes"].pop()),
        ("memory has no limit", lambda spec: spec["containers"][0].pop("resources")),
    ],
)
def test_a_weak_pod_is_found(found: str, weaken: Callable[[dict[str, Any]], None]) -> None:
    spec = copy.deepcopy(PODS[0].spec)
    weaken(spec)
    assert weaknesses(spec) == [found]


def test_what_refers_to_something_refers_to_what_is_there() -> None:
    (app,) = (pod for pod in PODS if pod.name == "llmcontrol")
    workloads = {(each["kind"], each["metadata"]["name"]): each for each in MANIFESTS}
    for each in workloads.values():
        if each["kind"] == "Deployment":
            assert each["spec"]["selector"]["matchLabels"] == each["spec"]["template"]["metadata"]["labels"]
    service, autoscaler = manifest("Service")["spec"], manifest("HorizontalPodAutoscaler")["spec"]
    assert service["selector"] == manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == app.labels
    assert service["ports"][0]["targetPort"] == app.container["ports"][0]["name"]
    target = autoscaler["scaleTargetRef"]
    assert "replicas" not in workloads[target["kind"], target["name"]]["spec"], "the autoscaler and it would fight"
    assert autoscaler["minReplicas"] > manifest("PodDisruptionBudget")["spec"]["minAvailable"], "no node could be emptied"
    for pod in PODS:
        assert [each["configMapRef"]["name"] for each in pod.container["envFrom"]] == [manifest("ConfigMap")["metadata"]["name"]]


def test_the_port_is_one() -> None:
    (app,) = (pod for pod in PODS if pod.name == "llmcontrol")
    assert app.container["ports"][0]["containerPort"] == PORT == int(app.container["command"][-1])
    assert f"server 127.0.0.1:{PORT};" in (DEPLOY / "nginx.conf").read_text()


def test_there_is_time_to_end_in_good_order() -> None:
    delay_s = float(manifest("ConfigMap")["data"]["LLM_DRAIN_DELAY_S"])
    needed_s = settings.SHUTDOWN_GRACE_S + END_MARGIN_S
    for pod in PODS:
        if pod.name != "llmcontrol-migrate":
            assert pod.spec["terminationGracePeriodSeconds"] >= needed_s + delay_s
    for name in ("app-1", "app-2", "worker-1", "worker-2"):
        own_s = float(OURS[name]["environment"].get("LLM_DRAIN_DELAY_S", 0))
        assert int(OURS[name]["stop_grace_period"].rstrip("s")) >= needed_s + own_s
    for path in UNITS:
        assert int(unit(path)["TimeoutStopSec"][0]) >= needed_s


@pytest.mark.process
def test_probes_are_answered(live: LiveServer) -> None:
    (app,) = (pod for pod in PODS if pod.name == "llmcontrol")
    paths = {name: app.container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}
    for path in paths.values():
        assert wire.call(live.base_url, "GET", path).status == 200


# Compose --------------------------------------------------------------------------------------------------------------


def test_containers_of_ours_may_do_little() -> None:
    for name, service in OURS.items():
        assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], ["/tmp"]), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["volumes"] == ["state:/state"], name
    assert "ports" not in COMPOSE["services"]["postgres"]
    assert "ports" not in COMPOSE["services"]["redis"]
    assert COMPOSE["networks"]["inside"]["internal"]


def test_what_compose_names_it_also_declares() -> None:
    services = COMPOSE["services"]
    assert sorted(services) == ["app-1", "app-2", "migrate", "nginx", "postgres", "redis", "worker-1", "worker-2"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= services.keys(), name
        assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys(), name
        assert set(service["networks"]) <= COMPOSE["networks"].keys(), name
        wanted = {
            file.removeprefix("/run/secrets/") for file in service.get("environment", {}).values() if file.startswith("/run/secrets/")
        }
        assert wanted <= set(service.get("secrets", [])), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).is_file() if source.startswith(".") else source in COMPOSE["volumes"], name


def test_nginx_is_told_the_addresses_of_both() -> None:
    services = COMPOSE["services"]
    (script,) = (part for part in services["nginx"]["command"] if part.startswith("sed"))
    (change,) = re.findall(r"sed '(s/.*/)'", script)
    done = subprocess.run(["sed", change, str(DEPLOY / "nginx.conf")], capture_output=True, text=True, check=True)
    addresses = [services[name]["networks"]["outside"]["ipv4_address"] for name in ("app-1", "app-2")]
    assert re.findall(r"server (\S+):8000;", done.stdout) == addresses
    proxy = services["nginx"]["networks"]["outside"]["ipv4_address"]
    assert OURS["app-1"]["environment"]["LLM_TRUSTED_PROXIES"] == f"{proxy}/32"


# systemd --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_understands_every_line(path: Path, tmp_path: Path) -> None:
    """`systemd-analyze verify` names unknown settings and values; only the interpreter lies elsewhere here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    here = tmp_path / path.name
    here.write_text(path.read_text().replace("/opt/llmcontrol/.venv/bin/python", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(here)], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if path.name in line or str(tmp_path) in line] == []


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_may_do_little_and_is_started_again(path: Path) -> None:
    words = unit(path)
    assert words["ProtectSystem"] == ["strict"]
    assert words["NoNewPrivileges"] == ["true"]
    assert words["CapabilityBoundingSet"] == [""]
    assert words["User"] == ["llmcontrol"]
    assert words["Restart"] == ["always"]
    assert words["KillMode"] == ["mixed"]
    assert words["Environment"] == [f"LLM_STATE_DIR=/var/lib/{words['StateDirectory'][0]}"]
