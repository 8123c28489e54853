"""What `quickstart` needs before Django's settings can be read: a place for state, secrets, and the local model's address.

Settings refuse to load without secrets, so this runs first, from manage.py, and imports no Django.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import os
import secrets
import socket
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path

from core.errors import ConfigurationError
from llmcontrol.environment import Environment, load_env_file
from providers import local_model

BASE_DIR = Path(__file__).resolve().parent.parent
MODELS = ("local", "echo", "none")
_GENERATED: Mapping[str, Callable[[], str]] = {
    "SECRET_KEY": lambda: secrets.token_urlsafe(48),
    "KEY_ENCRYPTION_KEYS": lambda: "1:" + base64.b64encode(secrets.token_bytes(32)).decode(),
    "API_KEY_PEPPER": lambda: secrets.token_urlsafe(48),
}
_HEADING = """\
# Written once by quickstart, never overwritten. Keep it: without KEY_ENCRYPTION_KEYS no stored vendor key can be read
# again, and without API_KEY_PEPPER no API key is recognised. Environment variables of the same names come first.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """quickstart's options: read here for what settings depend on, and by the command for the rest."""
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default 127.0.0.1)")
    parser.add_argument("--port", type=port_number, help="port to serve on; 0 = any free one (default LLM_PORT, or 8000)")
    parser.add_argument("--workers", type=worker_count, default=1, help="server processes (default 1)")
    parser.add_argument("--state-dir", type=Path, help="database, journal, secrets (default LLM_STATE_DIR, or var beside manage.py)")
    parser.add_argument("--model", choices=MODELS, default="local", help="what answers at first (default local: a small real model)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON when ready, for scripts")
    parser.add_argument("--reset-credentials", action="store_true", help="replace the password, API key and token of the first start")


def port_number(text: str) -> int:
    return _bounded(text, 0, 65535)


def worker_count(text: str) -> int:
    return _bounded(text, 1, 256)


def _bounded(text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9) or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"{text!r}: write a whole number from {low} to {high}")
    return int(text)


def prepare(argv: Sequence[str], environ: MutableMapping[str, str] = os.environ) -> None:
    """Makes `environ` and the state folder such that settings load. Raises ConfigurationError."""
    parser = argparse.ArgumentParser(prog="manage.py quickstart", add_help=False)
    add_arguments(parser)
    options, _ = parser.parse_known_args(argv)
    state_dir = make_state_dir(options.state_dir or Path(environ.get("LLM_STATE_DIR") or BASE_DIR / "var"))
    environ["LLM_STATE_DIR"] = str(state_dir)
    write_settings(state_dir, environ)
    if {"-h", "--help"}.isdisjoint(argv):
        _hold_alone(state_dir)
        if options.model == "local" and local_model.model_file() is not None:
            _allow_local_model(state_dir, environ)


def make_state_dir(path: Path) -> Path:
    path = path.resolve()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigurationError(f"LLM_STATE_DIR: {path} cannot be made ({exc.strerror}); name another with --state-dir") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigurationError(f"LLM_STATE_DIR: {path} cannot be written to; name another with --state-dir")
    return path


def write_settings(state_dir: Path, environ: Mapping[str, str]) -> None:
    """`settings.env` with the secrets that `environ` does not give. A file that is there stays as it is."""
    path = state_dir / "settings.env"
    missing = [name for name in _GENERATED if name not in environ and f"{name}_FILE" not in environ]
    if path.exists() or not missing:
        return
    content = _HEADING + "".join(f"{name}={_GENERATED[name]()}\n" for name in missing)
    draft = path.with_name(f"settings.env.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A link appears whole or not at all, and never in place of a file that came first.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _hold_alone(state_dir: Path) -> None:
    """Refuses a second quickstart on one state folder. The lock is this process's until it ends."""
    descriptor = os.open(state_dir / "quickstart.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigurationError(f"another quickstart runs on {state_dir}: stop it, or name another folder with --state-dir") from None


def _allow_local_model(state_dir: Path, environ: MutableMapping[str, str]) -> None:
    load_env_file(state_dir / "settings.env", environ)
    wanted = Environment(environ).text("OUTBOUND_ALLOW")
    own = f"{local_model.HOST}/32:{_choose_model_port(state_dir)}"
    environ.pop("OUTBOUND_ALLOW_FILE", None)
    environ["OUTBOUND_ALLOW"] = f"{wanted},{own}" if wanted else own


def model_port(state_dir: Path) -> int | None:
    """The port that quickstart chose for the local model on this state folder."""
    try:
        port = int((state_dir / "local-model.port").read_text())
    except (OSError, ValueError):
        return None
    return port if 0 < port < 65536 else None


def _choose_model_port(state_dir: Path) -> int:
    """The one of last time if it is free, so that a second start changes nothing."""
    port = model_port(state_dir)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((local_model.HOST, port or 0))
        except OSError:
            probe.bind((local_model.HOST, 0))
        chosen = int(probe.getsockname()[1])
    if chosen != port:
        (state_dir / "local-model.port").write_text(f"{chosen}\n")
    return chosen
