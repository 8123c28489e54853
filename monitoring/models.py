"""The ledger of what happened, and the sums over it. Rows carry names beside ids and no foreign keys: history survives what it
speaks of."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import models

from core.choice import MAX_TASK_TYPE
from monitoring import histogram
from monitoring.audit_models import AuditEvent
from monitoring.budget_models import BudgetAccount, BudgetEntry, BudgetLease
from monitoring.saved_filter_models import SavedFilter

# Django looks for all rows of an app in its `models`.
__all__ = [
    "AuditEvent",
    "BudgetAccount",
    "BudgetEntry",
    "BudgetLease",
    "LabelRollup",
    "LedgerHour",
    "Pruned",
    "RequestBody",
    "RequestLog",
    "Rollup",
    "SavedFilter",
    "UsageRecord",
]

MAX_USER, MAX_TAG = 200, 60
_NO_ROW_IS_OLDER = datetime(1970, 1, 1, tzinfo=UTC)


def _user() -> models.CharField[str, str]:
    # `user` is a word of SQL.
    return models.CharField(
        "user", max_length=MAX_USER, blank=True, default="", db_default="", help_text="Whom the request names: a customer of the caller's."
    )


def _task_type() -> models.CharField[str, str]:
    return models.CharField(max_length=MAX_TASK_TYPE, blank=True, default="", db_default="")


def _tag() -> models.CharField[str, str]:
    return models.CharField(max_length=MAX_TAG, blank=True, default="", db_default="", help_text="What the request says it is for.")


def _sparse_indexes(prefix: str) -> list[models.Index]:
    """Of rows that have the value: the others are not in them, and cost nothing."""
    return [
        models.Index(fields=[name, "id"], name=f"{prefix}_{name}", condition=models.Q(**{f"{name}__gt": ""}))
        for name in ("end_user", "task_type", "tag")
    ]


class UsageRecord(models.Model):
    """One attempt at a vendor: what went in, what came out, what it cost. Written by the drainer, never edited."""

    class Status(models.TextChoices):
        OK = "ok", "OK"
        ERROR = "error", "Error"
        CLIENT_CLOSED = "client_closed", "Client left"
        INTERRUPTED = "interrupted", "Process died"

    class Source(models.TextChoices):
        VENDOR = "vendor", "Vendor"
        ESTIMATED = "estimated", "Estimated"
        REFUSED = "refused", "Estimated: refused"
        NONE = "none", "None"

    request_id = models.CharField(max_length=40)
    attempt = models.PositiveSmallIntegerField()
    started_at = models.DateTimeField()
    team_id = models.CharField(max_length=36, blank=True)
    team_name = models.CharField("team", max_length=120, blank=True)
    key_id = models.CharField(max_length=36, blank=True)
    key_name = models.CharField("key", max_length=120, blank=True)
    provider_id = models.CharField(max_length=36)
    provider_name = models.CharField("provider", max_length=80)
    provider_key_id = models.CharField(max_length=36, blank=True)
    alias = models.CharField("model", max_length=200)
    model_id = models.CharField("vendor's model", max_length=200)
    status = models.CharField(max_length=16, choices=Status.choices)
    error_code = models.CharField(max_length=60, blank=True)
    vendor_status = models.PositiveSmallIntegerField(default=0, help_text="HTTP status of the vendor; 0 = none.")
    finish_reason = models.CharField(max_length=40, blank=True)
    streamed = models.BooleanField(default=False)
    input_tokens = models.PositiveBigIntegerField(default=0)
    cached_input_tokens = models.PositiveBigIntegerField(default=0)
    cache_write_tokens = models.PositiveBigIntegerField(default=0)
    cache_write_1h_tokens = models.PositiveBigIntegerField(default=0)
    input_audio_tokens = models.PositiveBigIntegerField(default=0)
    input_image_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    reasoning_tokens = models.PositiveBigIntegerField(default=0)
    output_audio_tokens = models.PositiveBigIntegerField(default=0)
    output_image_tokens = models.PositiveBigIntegerField(default=0)
    usage_source = models.CharField(max_length=12, choices=Source.choices)
    cost_micros = models.BigIntegerField(null=True, help_text="Millionths of the currency; empty = price unknown.")
    currency = models.CharField(max_length=3, blank=True)
    price_id = models.CharField(max_length=36, blank=True)
    cost_reporting_micros = models.BigIntegerField(
        null=True, help_text="The cost in the reporting currency; empty = price or rate unknown."
    )
    charged_micros = models.BigIntegerField(null=True, help_text="What the team owes, in the reporting currency; empty = unknown.")
    reporting_currency = models.CharField(max_length=3, blank=True)
    exchange_rate = models.CharField(max_length=24, blank=True, help_text="Units of the reporting currency for one of the price's.")
    duration_ms = models.PositiveIntegerField(default=0)
    first_token_ms = models.PositiveIntegerField(null=True)
    config_version = models.PositiveBigIntegerField(default=0)
    budget_entries = models.PositiveSmallIntegerField(default=0, help_text="In so many budgets it counts.")
    end_user = _user()
    task_type = _task_type()
    tag = _tag()
    usage_refused = models.CharField(
        "refused counts", max_length=200, blank=True, help_text="What the vendor counted and why that was not believed, so that we counted."
    )

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["request_id", "attempt"], name="usage_attempt")]
        indexes = [
            models.Index(fields=["started_at"], name="usage_started"),
            # What lists are filtered by: a name that is rare, or never was, is found without reading the table.
            *(
                models.Index(fields=[name, "id"], name=f"usage_{name}")
                for name in ("team_id", "team_name", "key_id", "key_name", "alias", "provider_id", "provider_name", "status")
            ),
            *_sparse_indexes("usage"),
        ]

    def __str__(self) -> str:
        return f"{self.request_id}-{self.attempt}"


class RequestLog(models.Model):
    """One client request, however many attempts it took. `status_code` is what the client got; 499 = it had left."""

    class Cache(models.TextChoices):
        HIT = "hit", "Hit"
        SHARED = "shared", "Shared"
        MISS = "miss", "Miss"

    request_id = models.CharField(max_length=40, unique=True)
    started_at = models.DateTimeField()
    team_id = models.CharField(max_length=36, blank=True)
    team_name = models.CharField("team", max_length=120, blank=True)
    key_id = models.CharField(max_length=36, blank=True)
    key_name = models.CharField("key", max_length=120, blank=True)
    dialect = models.CharField(max_length=20)
    alias = models.CharField("model", max_length=200, blank=True)
    provider_name = models.CharField("provider", max_length=80, blank=True)
    model_id = models.CharField("vendor's model", max_length=200, blank=True)
    streamed = models.BooleanField(default=False)
    status_code = models.PositiveSmallIntegerField()
    error_code = models.CharField(max_length=60, blank=True)
    error_message = models.CharField(max_length=500, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    total_tokens = models.PositiveBigIntegerField(default=0)
    cost_micros = models.BigIntegerField(null=True)
    currency = models.CharField(max_length=3, blank=True)
    duration_ms = models.PositiveIntegerField(default=0)
    first_token_ms = models.PositiveIntegerField(null=True)
    config_version = models.PositiveBigIntegerField(default=0)
    dropped = models.CharField(
        max_length=500,
        blank=True,
        help_text="What the client asked for and the vendor did not get: parameters by name, messages by place.",
    )
    end_user = _user()
    task_type = _task_type()
    tag = _tag()
    prompt_name = models.CharField(
        "prompt", max_length=100, blank=True, default="", db_default="", help_text="The prompt template that was filled in, if any."
    )
    prompt_version = models.PositiveIntegerField(default=0, db_default=0)
    cache = models.CharField(
        max_length=6,
        choices=Cache.choices,
        blank=True,
        default="",
        db_default="",
        help_text="Hit: given again. Shared: made for another request that came before. Miss: asked of a vendor. Empty: the cache is off.",
    )
    saved_micros = models.BigIntegerField(
        null=True, help_text="What the answer that was given again had cost; empty = nothing, or unknown."
    )
    decision = models.TextField(blank=True, default="", db_default="", editable=False, help_text="Why this model: see core.choice.")
    # Without an index: nothing asks for rows by it (spans carry the request's id, which leads here), and each traced row would pay for one.
    trace_id = models.CharField(
        "trace", max_length=32, blank=True, default="", db_default="", help_text="Of its trace, if the gateway exports traces."
    )
    replayed = models.BooleanField(
        "given again", default=False, db_default=False, help_text="What another request with its Idempotency-Key was answered."
    )

    class Meta:
        verbose_name = "request"
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["started_at"], name="request_started"),
            models.Index(fields=["key_id", "id"], name="request_key"),
            *(
                models.Index(fields=[name, "id"], name=f"request_{name}")
                for name in ("team_id", "team_name", "key_name", "alias", "provider_name", "status_code")
            ),
            *_sparse_indexes("request"),
            models.Index(fields=["prompt_name", "prompt_version", "id"], name="request_prompt", condition=models.Q(prompt_name__gt="")),
        ]

    def __str__(self) -> str:
        return self.request_id


class RequestBody(models.Model):
    """What a client sent and was sent, of API keys with `store_bodies`: the first bytes, compressed with zlib. Apart from the log, so
    that no list ever reads it, and gone long before it. Only `monitoring.bodies` reads it, one at a time."""

    request_id = models.CharField(max_length=40, unique=True)
    started_at = models.DateTimeField(db_index=True)
    key_id = models.CharField(max_length=36)
    request = models.BinaryField()
    response = models.BinaryField()
    request_bytes = models.PositiveBigIntegerField(help_text="Of the whole body.")
    response_bytes = models.PositiveBigIntegerField(help_text="Of the whole answer.")
    headers = models.BinaryField(null=True, help_text="As `gateway.kept_headers` leaves them; null = from before they were kept.")

    class Meta:
        verbose_name = "bodies of a request"
        verbose_name_plural = "bodies of requests"
        default_permissions = ("view",)

    def __str__(self) -> str:
        return self.request_id


class OpenRequest(models.Model):
    """A request under way, as its process said while somebody watched: see `monitoring.open_requests`. From the opening record of its
    latest attempt; `started_at` is that of the first."""

    token = models.CharField(max_length=40, db_index=True, help_text="Of its process's journal.")
    told_at = models.DateTimeField()
    request_id = models.CharField(max_length=40, unique=True)
    attempt = models.PositiveSmallIntegerField()
    started_at = models.DateTimeField()
    team_id = models.CharField(max_length=36, blank=True)
    team_name = models.CharField(max_length=120, blank=True)
    key_name = models.CharField(max_length=120, blank=True)
    alias = models.CharField(max_length=200, blank=True)
    provider_name = models.CharField(max_length=80, blank=True)
    streamed = models.BooleanField()
    end_user = _user()
    tag = _tag()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.request_id


class OpenRequestsWanted(models.Model):
    """One row: until when processes are to say which requests are under way, because somebody watches."""

    until = models.DateTimeField()

    class Meta:
        verbose_name = verbose_name_plural = "watch over open requests"
        default_permissions = ()

    def __str__(self) -> str:
        return f"until {self.until:%Y-%m-%d %H:%M:%S}"


class Rollup(models.Model):
    """Sums over what began in one hour or one day (UTC), for each combination of what can be asked for. What every chart is made of.

    Entered in the transaction that enters the rows themselves. Names are the latest, ids stay. Requests count where they ended:
    at their last vendor. One that was refused before any vendor was chosen counts in `refused_requests` alone, and for no model,
    since the name may be anything that a caller made up.
    """

    class Span(models.IntegerChoices):
        HOUR = 3600
        DAY = 86_400

    span_s = models.PositiveIntegerField(choices=Span.choices)
    start = models.DateTimeField()
    team_id = models.CharField(max_length=36, blank=True)
    key_id = models.CharField(max_length=36, blank=True)
    provider_name = models.CharField("provider", max_length=80, blank=True)
    alias = models.CharField("model", max_length=200, blank=True)
    model_id = models.CharField("vendor's model", max_length=200, blank=True)
    status = models.CharField(max_length=16, choices=UsageRecord.Status.choices)
    streamed = models.BooleanField(default=False)
    currency = models.CharField(max_length=3, blank=True)
    reporting_currency = models.CharField(max_length=3, blank=True)
    team_name = models.CharField("team", max_length=120, blank=True)
    key_name = models.CharField("key", max_length=120, blank=True)
    provider_id = models.CharField(max_length=36, blank=True, help_text="Empty where only requests, no attempts, were counted.")
    requests = models.BigIntegerField(default=0)
    failed_requests = models.BigIntegerField(default=0)
    refused_requests = models.BigIntegerField(default=0)
    attempts = models.BigIntegerField(default=0)
    failed_attempts = models.BigIntegerField(default=0)
    unpriced_attempts = models.BigIntegerField(default=0, help_text="Whose price is unknown; their cost is in no sum.")
    unconverted_attempts = models.BigIntegerField(default=0, help_text="Whose cost in the reporting currency is unknown.")
    input_tokens = models.BigIntegerField(default=0)
    cached_input_tokens = models.BigIntegerField(default=0)
    cache_write_tokens = models.BigIntegerField(default=0)
    cache_write_1h_tokens = models.BigIntegerField(default=0)
    input_audio_tokens = models.BigIntegerField(default=0)
    input_image_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    output_audio_tokens = models.BigIntegerField(default=0)
    output_image_tokens = models.BigIntegerField(default=0)
    cost_micros = models.BigIntegerField(default=0)
    cost_reporting_micros = models.BigIntegerField(default=0)
    charged_micros = models.BigIntegerField(default=0)
    duration_ms = models.BigIntegerField(default=0, help_text="Of all requests together, without the refused.")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=[
                    *("span_s", "start", "team_id", "key_id", "provider_name", "alias", "model_id"),
                    *("status", "streamed", "currency", "reporting_currency"),
                ],
                name="rollup_key",
            )
        ]

    def __str__(self) -> str:
        return f"{self.Span(self.span_s).label} {self.start:%Y-%m-%d %H}h, {self.team_name}, {self.key_name}, {self.alias}"


DURATION_COLUMNS = tuple(f"duration_{number:02}" for number in range(histogram.CLASSES))
FIRST_TOKEN_COLUMNS = tuple(f"first_token_{number:02}" for number in range(histogram.CLASSES))
for _column in (*DURATION_COLUMNS, *FIRST_TOKEN_COLUMNS):
    Rollup.add_to_class(_column, models.IntegerField(default=0))


class LabelRollup(models.Model):
    """Sums over what began in one day (UTC), for each user, task type and tag that a team's requests named; "" = none.

    Callers make these words up, so of each team and day only LLM_MAX_LABELS_PER_DAY combinations are told apart; what the others
    used is under OTHER in all three. The sums of a day are those of the rollups by day.
    """

    OTHER = "(other)"

    start = models.DateTimeField()
    team_id = models.CharField(max_length=36, blank=True)
    key_id = models.CharField(max_length=36, blank=True)
    alias = models.CharField("model", max_length=200, blank=True)
    end_user = _user()
    task_type = _task_type()
    tag = _tag()
    currency = models.CharField(max_length=3, blank=True)
    reporting_currency = models.CharField(max_length=3, blank=True)
    team_name = models.CharField("team", max_length=120, blank=True)
    key_name = models.CharField("key", max_length=120, blank=True)
    requests = models.BigIntegerField(default=0)
    failed_requests = models.BigIntegerField(default=0)
    refused_requests = models.BigIntegerField(default=0)
    attempts = models.BigIntegerField(default=0)
    failed_attempts = models.BigIntegerField(default=0)
    unpriced_attempts = models.BigIntegerField(default=0)
    unconverted_attempts = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    cached_input_tokens = models.BigIntegerField(default=0)
    cache_write_tokens = models.BigIntegerField(default=0)
    cache_write_1h_tokens = models.BigIntegerField(default=0)
    input_audio_tokens = models.BigIntegerField(default=0)
    input_image_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    output_audio_tokens = models.BigIntegerField(default=0)
    output_image_tokens = models.BigIntegerField(default=0)
    cost_micros = models.BigIntegerField(default=0)
    cost_reporting_micros = models.BigIntegerField(default=0)
    charged_micros = models.BigIntegerField(default=0)
    duration_ms = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["start", "team_id", "key_id", "alias", "end_user", "task_type", "tag", "currency", "reporting_currency"],
                name="label_rollup_key",
            )
        ]

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d}, {self.team_name}, {self.end_user}, {self.task_type}, {self.tag}"


class LedgerHour(models.Model):
    """Between which ids the rows of one kind lie that began in one hour."""

    class Kind(models.TextChoices):
        USAGE = "usage"
        REQUEST = "request"

    kind = models.CharField(max_length=8, choices=Kind.choices)
    start = models.DateTimeField()
    first_id = models.BigIntegerField()
    last_id = models.BigIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["kind", "start"], name="ledger_hour")]

    def __str__(self) -> str:
        return f"{self.kind} {self.start:%Y-%m-%d %H}h"


class Pruned(models.Model):
    """Up to when rows of the ledger may be gone; one row, or none while nothing was ever deleted."""

    before = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.before:%Y-%m-%d %H:%M}"

    @classmethod
    def kept_from(cls) -> datetime:
        """From here on every row of the ledger is there. Raises DatabaseError."""
        latest: datetime | None = cls._default_manager.aggregate(latest=models.Max("before"))["latest"]
        return latest or _NO_ROW_IS_OLDER
