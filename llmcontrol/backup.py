"""A backup: one compressed tar with the database, the journal and the audit checkpoints, and a list of their digests.

Made under load, in an order that loses nothing: the journal before the database, because records go from the one to the other and are never
entered twice; the checkpoints before the database, because a checkpoint of a row that is not there would look like a trail cut short.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings

from llmcontrol import database_copy
from monitoring import journal

FORMAT = 1
_MANIFEST, _DATABASE, _JOURNAL, _CHECKPOINTS, _SECRETS = "manifest.json", "database", "journal", "audit-checkpoints.jsonl", "settings.env"
# Room for a full disk, a lock that dies with its process, a draft: none of them says anything to another process.
_PASSING = (".reserve", ".lock", ".checkpoint-new")
_TRIES = 20


class BackupRefused(Exception):
    """Its text says why, and what to do."""


def make(file: Path, *, secrets: bool) -> None:
    """Raises BackupRefused; CopyFailed, DatabaseError, OSError, ConfigurationError. `file` is there only when it is whole."""
    if file.exists():
        raise BackupRefused(f"{file} is there already: name another file")
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".backup-") as name:
        folder = Path(name)
        if secrets:
            _copy_secrets(folder / _SECRETS)
        if settings.AUDIT_CHECKPOINTS.exists():
            shutil.copyfile(settings.AUDIT_CHECKPOINTS, folder / _CHECKPOINTS)
        _copy_journal(settings.JOURNAL_DIR, folder / _JOURNAL)
        database_copy.dump(folder / _DATABASE)
        contents = sorted(path for path in folder.rglob("*") if path.is_file())
        manifest = {
            "format": FORMAT,
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "engine": database_copy.engine(),
            "sha256": {str(path.relative_to(folder)): _digest(path) for path in contents},
        }
        (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        whole = folder / "whole"
        with os.fdopen(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
            with tarfile.open(fileobj=output, mode="w:gz", compresslevel=1) as archive:
                for path in [folder / _MANIFEST, *contents]:
                    archive.add(path, str(path.relative_to(folder)))
            output.flush()
            os.fsync(output.fileno())
        os.link(whole, file)


def restore(file: Path) -> str:
    """When it was made. Raises BackupRefused before anything is changed; else as `make`."""
    settings.STATE_DIR.mkdir(parents=True, exist_ok=True)
    _refuse_live_state()
    with tempfile.TemporaryDirectory(dir=settings.STATE_DIR, prefix=".restore-") as name:
        folder = Path(name)
        made_at = _unpack(file, folder)
        database_copy.load(folder / _DATABASE)
        if (folder / _JOURNAL).is_dir():
            shutil.copytree(folder / _JOURNAL, settings.JOURNAL_DIR, dirs_exist_ok=True)
        if (folder / _CHECKPOINTS).exists():
            shutil.copyfile(folder / _CHECKPOINTS, settings.AUDIT_CHECKPOINTS)
            settings.AUDIT_CHECKPOINTS.chmod(0o600)
    return made_at


def _copy_secrets(target: Path) -> None:
    source = settings.STATE_DIR / _SECRETS
    if not source.exists():
        raise BackupRefused(f"there is no {source}: the secrets come from elsewhere, so keep them there")
    shutil.copyfile(source, target)


def _copy_journal(source: Path, target: Path) -> None:
    if not source.is_dir():
        return
    target.mkdir()
    for token in journal.tokens(source):
        for _ in range(_TRIES):
            if _copy_chain(source, target, token):
                break
        else:
            raise BackupRefused(f"the journal {token} moved on faster than it could be copied: run this command again")
    for path in source.glob("*.jsonl"):  # records that the ledger refused
        shutil.copyfile(path, target / path.name)


def _copy_chain(source: Path, target: Path, token: str) -> bool:
    """One process's journal: how far it is entered, then what follows. False where it moved on meanwhile."""
    for old in target.glob(f"{token}[.-]*"):
        old.unlink()
    try:
        for path in sorted(source.glob(f"{token}.*")):
            if path.suffix not in _PASSING:
                shutil.copyfile(path, target / path.name)
        entered = _number_entered(target / f"{token}.checkpoint")
        numbers = journal.segment_numbers(source, token)
        for number in numbers:
            path = journal.segment_path(source, token, number)
            shutil.copyfile(path, target / path.name)
    except FileNotFoundError:
        return False
    return not numbers or entered is None or entered in numbers


def _number_entered(checkpoint: Path) -> int | None:
    """The segment that a checkpoint speaks of."""
    return int(json.loads(checkpoint.read_bytes())[0]) if checkpoint.exists() else None


def _refuse_live_state() -> None:
    """What is there is never written over: whoever wants that moves it away first, and so still has it."""
    for token in journal.tokens(settings.JOURNAL_DIR) if settings.JOURNAL_DIR.is_dir() else ():
        lock = journal.take_lock(settings.JOURNAL_DIR, token)
        if lock is None:
            raise BackupRefused(f"a gateway or worker runs on {settings.STATE_DIR}: stop it first")
        os.close(lock)
        raise BackupRefused(
            f"{settings.JOURNAL_DIR} holds records that may not be entered yet: move it away, or name another LLM_STATE_DIR"
        )
    if not database_copy.is_empty():
        raise BackupRefused("the database has tables: name an empty one in DATABASE_URL, or move the file of SQLite away")
    if settings.AUDIT_CHECKPOINTS.exists():
        raise BackupRefused(f"{settings.AUDIT_CHECKPOINTS} is there, and belongs to another trail: move it away")


def _unpack(file: Path, folder: Path) -> str:
    """Raises BackupRefused where the file is not whole, or of another database."""
    try:
        with tarfile.open(file, "r:gz") as archive:
            archive.extractall(folder, filter="data")
        manifest = json.loads((folder / _MANIFEST).read_text())
        digests = manifest["sha256"]
        broken = [name for name, digest in digests.items() if _digest(folder / name) != digest]
    except (tarfile.TarError, EOFError, ValueError, KeyError, FileNotFoundError) as exc:
        raise BackupRefused(f"{file} is no whole backup ({type(exc).__name__}): take another one") from exc
    if broken or _DATABASE not in digests or manifest.get("format") != FORMAT:
        raise BackupRefused(f"{file} is damaged or of another version ({', '.join(broken) or 'its manifest'}): take another one")
    if manifest["engine"] != database_copy.engine():
        raise BackupRefused(f"{file} is of {manifest['engine']}, and DATABASE_URL names {database_copy.engine()}: they cannot be exchanged")
    return str(manifest["made_at"])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
