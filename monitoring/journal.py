"""What the journal keeps of each request, and how it is written before the client gets its last byte. `journal_reading` reads it."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
from pathlib import Path
from typing import NamedTuple, Protocol
from zlib import crc32

import msgspec

from core.clock import Clock
from core.errors import AccountingUnavailable, ConfigurationError
from monitoring.reserve import RESERVE_BYTES, make_reserve, open_reserve, reserve_path

_log = logging.getLogger(__name__)


class Hold(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What an attempt has reserved of one budget: of its account that begins at `period_start` (wall seconds), out of a lease;
    `lease_id` 0 = of a soft budget, which is only counted. In the budget's own unit: micro-units, tokens or requests."""

    budget_id: str
    period_start: int
    lease_id: int
    reserved: int


class AttemptOpened(msgspec.Struct, tag="open", array_like=True, frozen=True, gc=False):
    """Written before a vendor is called. Carries all that replay needs if no `AttemptSettled` follows.

    `request_id` and `attempt` tell attempts apart. All but `estimated_input_tokens` and `holds` are columns of the ledger;
    those with defaults came later.
    """

    estimated_input_tokens: int
    started_at: float
    request_id: str
    attempt: int
    team_id: str
    team_name: str
    key_id: str
    key_name: str
    provider_id: str
    provider_name: str
    alias: str
    model_id: str
    streamed: bool
    config_version: int
    holds: tuple[Hold, ...] = ()
    end_user: str = ""
    task_type: str = ""
    tag: str = ""


class AttemptSettled(msgspec.Struct, tag="settle", array_like=True, frozen=True, gc=False):
    """Written when the attempt has ended, before the last byte reaches the client. One per AttemptOpened.

    `status`: ok | error | client_closed. `usage_source`: vendor | estimated | refused | none. `cost_micros` None = price unknown.
    `cost_reporting_micros`, the same at `exchange_rate`, and `charged_micros`, what the team owes for it, are in `reporting_currency`;
    None = price or rate unknown. From `status` to `exchange_rate` all are columns of the ledger; those with defaults came later.
    `charges`: of each of the opening's `holds`, in their order, what was used; () = of none anything.
    `usage_refused`: what the vendor counted and why that was not believed.
    """

    request_id: str
    attempt: int
    status: str
    provider_key_id: str
    error_code: str
    vendor_status: int
    finish_reason: str
    usage_source: str
    input_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    input_audio_tokens: int
    input_image_tokens: int
    output_tokens: int
    reasoning_tokens: int
    output_audio_tokens: int
    output_image_tokens: int
    cost_micros: int | None
    currency: str
    price_id: str
    duration_ms: int
    first_token_ms: int | None
    cost_reporting_micros: int | None = None
    charged_micros: int | None = None
    reporting_currency: str = ""
    exchange_rate: str = ""
    charges: tuple[int, ...] = ()
    usage_refused: str = ""


class RequestEnded(msgspec.Struct, tag="request", array_like=True, frozen=True, gc=False):
    """One client request of a known caller, answered or refused. Totals are over all of its attempts.

    `cache`: hit | shared | miss, "" = the cache was not asked. `saved_micros`: of `currency`, what the answer that was given again had
    cost; None = nothing was, or its price is not known. `decision`: which models there were to choose from, and why in this order, as
    `core.choice` stores it; "" = the request named its model. `trace_id`: 32 hex digits, "" = nothing is traced. `replayed`: it was given
    what another request with its Idempotency-Key was given.
    """

    started_at: float
    request_id: str
    team_id: str
    team_name: str
    key_id: str
    key_name: str
    dialect: str
    alias: str
    provider_name: str
    model_id: str
    streamed: bool
    status_code: int
    error_code: str
    error_message: str
    attempts: int
    total_tokens: int
    cost_micros: int | None
    currency: str
    duration_ms: int
    first_token_ms: int | None
    config_version: int
    dropped: str
    end_user: str = ""
    task_type: str = ""
    tag: str = ""
    prompt_name: str = ""
    prompt_version: int = 0
    cache: str = ""
    saved_micros: int | None = None
    decision: str = ""
    trace_id: str = ""
    replayed: bool = False


Record = AttemptOpened | AttemptSettled | RequestEnded

# Records hold their columns in a row, between what only pairing and replay need.
OPENED_COLUMNS = slice(AttemptOpened.__struct_fields__.index("started_at"), AttemptOpened.__struct_fields__.index("holds"))
LABEL_COLUMNS = slice(AttemptOpened.__struct_fields__.index("end_user"), None)
SETTLED_COLUMNS = slice(AttemptSettled.__struct_fields__.index("status"), AttemptSettled.__struct_fields__.index("charges"))


class Sink(Protocol):
    """Where the gateway puts its records: durable against kill -9 when `write` returns."""

    def write(self, *records: Record) -> None:
        """One `os.write` for all of `records`. Raises core.errors.AccountingUnavailable."""
        ...


# Writing ------------------------------------------------------------------------------------------------------------
#
# A frame is `magic | length | crc32 | JSON`, and the JSON an array of all the records of one write. The magic begins with a byte
# that UTF-8 never uses, so it cannot occur inside a payload, and a reader that lost its way finds the next frame by looking for it.

MAGIC = b"\xffLJ2"
HEADER = struct.Struct(">4sII")
_encode = msgspec.json.Encoder().encode
_SUFFIX = ".journal"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_LOOK_AGAIN_S = 1.0


class Position(NamedTuple):
    """A place in one process's journal: the segment's number (from 1) and a byte offset in it."""

    sequence: int
    offset: int


def frame(*records: Record) -> bytes:
    payload = _encode(records)
    return HEADER.pack(MAGIC, len(payload), crc32(payload)) + payload


def segment_path(directory: Path, token: str, sequence: int) -> Path:
    return directory / f"{token}-{sequence:06d}{_SUFFIX}"


def segment_numbers(directory: Path, token: str) -> list[int]:
    """The numbers of one process's segments on disk, oldest first."""
    names = (path.name for path in directory.glob(f"{token}-*{_SUFFIX}"))
    return sorted(int(name[len(token) + 1 : -len(_SUFFIX)]) for name in names)


def tokens(directory: Path) -> list[str]:
    """Every process that left a trace in `directory`, oldest first."""
    segments = {path.name.rpartition("-")[0] for path in directory.glob(f"*{_SUFFIX}")}
    return sorted(segments | {path.stem for path in directory.glob("*.lock")})


def take_lock(directory: Path, token: str) -> int | None:
    """A file descriptor that holds the lock of `token`'s journal, or None while another holder lives.

    The kernel drops the lock with its holder, however that ends: a lock that can be taken is a journal without a process.
    """
    fd = os.open(directory / f"{token}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    held = False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = os.fstat(fd).st_nlink > 0  # 0: whoever held it before us has cleared this journal away
    except BlockingIOError:
        pass
    finally:
        if not held:
            os.close(fd)
    return fd if held else None


class Journal:
    """One process's journal: numbered segments in `directory`, and one lock for as long as the process lives.

    Used from one thread, the event loop's; `committed` may be read from any. Not synced to disk per record: it survives the
    death of the process, not of the machine.

    On a full disk a reserve takes the settlements of what was begun before; nothing new is begun until there is one again.
    """

    def __init__(self, directory: Path, segment_bytes: int, clock: Clock) -> None:
        """Raises ConfigurationError where `directory` cannot be written."""
        self.directory = directory
        self._segment_bytes = segment_bytes
        self._torn = False
        self._clock = clock
        self._look_again_s = clock.monotonic()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.token, self._lock = self._claim(clock)
            self._sequence, self._size = 1, 0
            self._fd = self._create(1)
            self._reserve = reserve_path(directory, self.token)
            self._reserved = make_reserve(self._reserve)
        except OSError as exc:
            raise ConfigurationError(f"LLM_JOURNAL_DIR: {directory} cannot be written ({exc.strerror}); name a writable directory") from exc

    def _claim(self, clock: Clock) -> tuple[str, int]:
        while True:
            token = f"{int(clock.wall() * 1000):013d}.{os.urandom(5).hex()}"
            lock = take_lock(self.directory, token)
            if lock is not None:  # None: a sibling looking for orphans got between our creating the file and locking it
                return token, lock

    def _create(self, sequence: int) -> int:
        path = segment_path(self.directory, self.token, sequence)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def write(self, *records: Record) -> None:
        """All of `records` or none, in one `os.write`. Raises AccountingUnavailable."""
        try:
            data = frame(*records)
        except UnicodeEncodeError as exc:
            raise _unavailable("a record holds text that is not Unicode") from exc
        if not self._reserved and not _settles(records):
            self._renew_reserve()
        try:
            try:
                self._append(data)
            except OSError as exc:
                if exc.errno not in _NO_ROOM or not self._reserved or not _settles(records):
                    raise
                self._turn_to_reserve()
                self._append(data)
        except OSError as exc:
            raise _unavailable(str(exc)) from exc

    def _append(self, data: bytes) -> None:
        """Raises OSError; nothing is written then."""
        # Without a reserve left, the next segment might not get the room that this one has.
        if self._torn or (self._reserved and self._size and self._size + len(data) > self._segment_bytes):
            self._rotate()
        written = os.write(self._fd, data)
        if written != len(data):
            self._cut_back()
            raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes were written")
        self._size += written

    def _rotate(self) -> None:
        try:
            fd = self._create(self._sequence + 1)
        except OSError:
            if self._torn:
                raise
            return  # a segment that is too long beats a record that is lost; the next write tries again
        self._go_on_in(fd)

    def _turn_to_reserve(self) -> None:
        """Raises OSError."""
        self._reserved = False
        self._go_on_in(open_reserve(self._reserve, segment_path(self.directory, self.token, self._sequence + 1)))
        _log.critical("journal: the disk is full; what is under way is settled in the reserve of %d bytes", RESERVE_BYTES)

    def _renew_reserve(self) -> None:
        """Raises AccountingUnavailable while there is no room for one."""
        now = self._clock.monotonic()
        if now >= self._look_again_s:
            self._reserved = make_reserve(self._reserve)
            self._look_again_s = now + _LOOK_AGAIN_S
        if not self._reserved:
            raise _unavailable("the disk is full")
        self._cut_back()  # of what was the reserve, the unused end
        self._rotate()
        _log.warning("journal: there is room on the disk again")

    def _go_on_in(self, fd: int) -> None:
        os.close(self._fd)
        # The size falls before the number rises, so that `committed` never shows a place that does not exist yet.
        self._fd, self._size, self._sequence, self._torn = fd, 0, self._sequence + 1, False

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._fd, self._size)
            os.lseek(self._fd, self._size, os.SEEK_SET)  # what was the reserve is written at its place, not at its end
        except OSError:
            self._torn = True

    def committed(self) -> Position:
        """Everything before this place is written; segments with a lower number are complete."""
        while True:
            sequence, size = self._sequence, self._size
            if sequence == self._sequence:
                return Position(sequence, size)

    def close(self) -> None:
        """Idempotent. What was not drained is adopted by the next process that looks."""
        if self._lock != -1:
            self._reserve.unlink(missing_ok=True)
        fds, self._fd, self._lock = {self._fd, self._lock} - {-1}, -1, -1
        for fd in fds:
            os.close(fd)


def _settles(records: tuple[Record, ...]) -> bool:
    """Whether they end what was begun before, and are no news of anything else."""
    kinds = set(map(type, records))
    begun = any(isinstance(record, RequestEnded) and record.attempts for record in records)
    return AttemptOpened not in kinds and (AttemptSettled in kinds or begun)


def _unavailable(detail: str) -> AccountingUnavailable:
    return AccountingUnavailable("The usage journal cannot be written, so no request can be accounted for; try again later.", detail=detail)
