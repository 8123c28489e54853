"""Settings: from the environment only. Every variable, its default and its bounds: docs/configuration.md."""

from __future__ import annotations

import hmac
import ipaddress
import os
import sys
from collections import ChainMap
from pathlib import Path

import dj_database_url

from core.config import DEFAULT_CURRENCY
from core.errors import ConfigurationError
from core.money import CURRENCIES, UNKNOWN_CURRENCY
from gateway.sharing.redis_address import read_address
from llmcontrol import nacos, seeds, throwaway
from llmcontrol.environment import Environment, load_env_file
from llmcontrol.theme import UNFOLD as UNFOLD
from tasks.kinds import KINDS

BASE_DIR = Path(__file__).resolve().parent.parent
STATE_DIR = Path(os.environ.get("LLM_STATE_DIR") or BASE_DIR / "var").resolve()
_given = frozenset(os.environ)
load_env_file(STATE_DIR / "settings.env")
# A supervisor does not hand these down, so that workers which it starts later read the file as it is then.
READ_FROM_FILE = frozenset(os.environ) - _given
env = Environment(ChainMap(os.environ, throwaway.made_for(sys.argv, os.environ)))
_RUN = "`make run` writes one"

# Secrets ------------------------------------------------------------------------------------------------------------
SECRET_KEY = env.required("SECRET_KEY", _RUN)
KEY_ENCRYPTION_KEYS = env.keys("KEY_ENCRYPTION_KEYS", _RUN)
VAULT_ADDR = env.text("VAULT_ADDR")
VAULT_TOKEN = env.reader("VAULT_TOKEN")
VAULT_TRANSIT_MOUNT = env.text("VAULT_TRANSIT_MOUNT", "transit")
VAULT_NAMESPACE = env.text("VAULT_NAMESPACE")
VAULT_CACERT = env.text("VAULT_CACERT")
AWS_REGION = env.text("AWS_REGION")
AWS_KMS_ENDPOINT = env.text("AWS_KMS_ENDPOINT")
KEK_TIMEOUT_S = env.number("KEK_TIMEOUT_S", 5, 0.1, 60)
KEK_CACHE_S = env.number("KEK_CACHE_S", 3600, 0, 86_400)
KEK_CACHE_KEYS = env.integer("KEK_CACHE_KEYS", 10_000, 0, 1_000_000)
API_KEY_PEPPER = env.required("API_KEY_PEPPER", _RUN).encode()
# Derived where it is not set, so that an installation from before the trail has one; never changed (docs/audit.md).
AUDIT_KEY = (env.text("AUDIT_KEY") or hmac.new(API_KEY_PEPPER, b"llmcontrol audit", "sha256").hexdigest()).encode()
if len(AUDIT_KEY) < 32:
    raise ConfigurationError("AUDIT_KEY must have at least 32 characters")
if len(SECRET_KEY) < 32 or len(API_KEY_PEPPER) < 32:
    raise ConfigurationError("SECRET_KEY and API_KEY_PEPPER must each have at least 32 characters")

# Django -------------------------------------------------------------------------------------------------------------
DEBUG = env.boolean("DEBUG", False)
ALLOWED_HOSTS = env.items("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = env.items("CSRF_TRUSTED_ORIGINS")
ROOT_URLCONF = "llmcontrol.urls"
ASGI_APPLICATION = "llmcontrol.asgi.application"
INSTALLED_APPS = [
    # Only runserver asks Django for it, and it brings Twisted: 18 MB that no serving process needs.
    *(["daphne"] if "runserver" in sys.argv[1:2] else []),
    "unfold.apps.BasicAppConfig",
    "unfold.contrib.filters",
    "llmcontrol.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "drf_standardized_errors",
    "django_prometheus",
    "monitoring",
    "providers",
    "models_registry",
    "access",
    "gateway.config",
    "tasks",
    "telling",
    "llmcontrol",
]
MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "llmcontrol.middleware.content_security_policy",
    "llmcontrol.middleware.StaticFiles",
    "llmcontrol.languages.choosing.in_their_language",
    "llmcontrol.storage_errors.StorageErrors",
    "llmcontrol.middleware.audited",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "llmcontrol.middleware.Metrics",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "monitoring.sentences.messages",
            ]
        },
    }
]
LANGUAGE_CODE = "en"
# Of the admin; what programs read is English (languages/choosing.py).
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
LOCALE_PATHS = [BASE_DIR / "llmcontrol" / "locale"]
FORMAT_MODULE_PATH = "llmcontrol.languages.formats"
LANGUAGE_COOKIE_AGE = 365 * 86_400
LANGUAGE_COOKIE_HTTPONLY = True
LANGUAGE_COOKIE_SAMESITE = "Lax"
TIME_ZONE = "UTC"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"
STATIC_ROOT = STATE_DIR / "static"
WHITENOISE_USE_FINDERS = True
AUTHENTICATION_BACKENDS = ["access.login.ThrottledBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_TRIES = env.integer("LLM_LOGIN_TRIES", 5, 1, 1000)
# From the login on, whatever happened since: a session is saved when it is made, and not again.
SESSION_COOKIE_AGE = 3600 * env.integer("LLM_SESSION_HOURS", 12, 1, 336)
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.boolean("SECURE_COOKIES", False)
LANGUAGE_COOKIE_SECURE = SESSION_COOKIE_SECURE
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.boolean("BEHIND_TLS_PROXY", False) else None
SECURE_SSL_REDIRECT = env.boolean("HTTPS_REDIRECT", False)
SECURE_REDIRECT_EXEMPT = [r"^metrics$"]  # asked from inside, with a token of its own
SECURE_HSTS_SECONDS = env.integer("HSTS_S", 0, 0, 63_072_000)
SECURE_HSTS_INCLUDE_SUBDOMAINS = env.boolean("HSTS_SUBDOMAINS", False)
SECURE_HSTS_PRELOAD = env.boolean("HSTS_PRELOAD", False)
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

# Database -----------------------------------------------------------------------------------------------------------
# What libraries load where it happens to be installed, for what nobody here asks of them: 8 MB in every process. While the apps are
# loaded there is no such module (apps.py lets it go), and they do without.
HELD_BACK: tuple[str, ...] = ("requests", "pygments")
DATABASE_URL = env.text("DATABASE_URL") or f"sqlite:///{STATE_DIR / 'llmcontrol.sqlite3'}"
try:
    DATABASES = {"default": dj_database_url.parse(DATABASE_URL)}
except (ValueError, dj_database_url.ParseError, dj_database_url.UnknownSchemeError):
    raise ConfigurationError("DATABASE_URL: write sqlite:////path/file.sqlite3 or postgres://user:password@host:5432/name") from None
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # IMMEDIATE: with deferred transactions most concurrent writes fail at once instead of waiting their turn.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        # An administrator is told after so long that the file is busy; the drainer tries again.
        "timeout": 5,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
    # The admin's theme loads the Postgres driver where there is one, for form fields of Postgres: 11 MB in every process.
    HELD_BACK = (*HELD_BACK, "psycopg")
elif DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
    DATABASES["default"]["OPTIONS"] = {"connect_timeout": 2, "options": "-c statement_timeout=30000 -c lock_timeout=10000"}
    # Hands tasks to workers on any number of machines; its tables cannot be made on SQLite. Before "tasks", which does without its pages.
    INSTALLED_APPS.insert(INSTALLED_APPS.index("tasks"), "procrastinate.contrib.django")
    PROCRASTINATE_AUTODISCOVER_MODULE_NAME = None
else:
    raise ConfigurationError("DATABASE_URL: only sqlite and postgres are supported")
for _name in HELD_BACK:
    sys.modules.setdefault(_name, None)  # type: ignore[arg-type]

# Redis --------------------------------------------------------------------------------------------------------------
REDIS_ADDRESS = read_address(url) if (url := env.text("REDIS_URL")) else None

# REST ---------------------------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "access.api.authentication.PersonalTokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["llmcontrol.rest.DeclaredPermissions"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["llmcontrol.rest.StrictJSONParser"],
    "DEFAULT_FILTER_BACKENDS": ["llmcontrol.rest.TeamRows", "django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_PAGINATION_CLASS": "llmcontrol.rest.KeysetPagination",
    "DEFAULT_SCHEMA_CLASS": "llmcontrol.schema.Schema",
    "EXCEPTION_HANDLER": "llmcontrol.storage_errors.exception_handler",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "llmcontrol",
    "DESCRIPTION": "The control plane: vendors, models, prices, callers and what happened.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {"TaskStatus": "tasks.states.Status.choices", "WebhookStatus": "telling.models.WebhookStatus.choices"},
}

# E-mail -------------------------------------------------------------------------------------------------------------
EMAIL_HOST = env.text("EMAIL_HOST")
EMAIL_PORT = env.integer("EMAIL_PORT", 25, 1, 65535)
EMAIL_HOST_USER = env.text("EMAIL_HOST_USER")
EMAIL_HOST_PASSWORD = env.text("EMAIL_HOST_PASSWORD")
EMAIL_USE_TLS = env.boolean("EMAIL_USE_TLS", False)
EMAIL_USE_SSL = env.boolean("EMAIL_USE_SSL", False)
if EMAIL_USE_TLS and EMAIL_USE_SSL:
    raise ConfigurationError("EMAIL_USE_TLS and EMAIL_USE_SSL exclude each other: STARTTLS on port 587, or TLS from the start on port 465")
EMAIL_TIMEOUT = env.number("EMAIL_TIMEOUT_S", 5, 0.1, 20)
DEFAULT_FROM_EMAIL = env.text("EMAIL_FROM", "llmcontrol@localhost")

# Channels -----------------------------------------------------------------------------------------------------------
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

# Gateway ------------------------------------------------------------------------------------------------------------
LLM_PORT = env.integer("LLM_PORT", 8000, 1, 65535)
LLM_ENABLE_WEBSOCKET = env.boolean("LLM_ENABLE_WEBSOCKET", True)
ENABLE_CORS = env.boolean("LLM_ENABLE_CORS", False)
CORS_ORIGINS = env.items("LLM_CORS_ORIGINS", "*")
SEEDS = seeds.read(env)
AUTH_TOKEN = seeds.auth_token(env)
JOURNAL_DIR = Path(env.text("LLM_JOURNAL_DIR") or STATE_DIR / "journal")
JOURNAL_SEGMENT_BYTES = env.integer("LLM_JOURNAL_SEGMENT_BYTES", 16 * 2**20, 2**16, 2**30)
PROGRESS_INTERVAL_S = env.number("LLM_PROGRESS_INTERVAL_S", 0.02, 0, 60)
DRAIN_INTERVAL_S = env.number("LLM_DRAIN_INTERVAL_S", 0.5, 0.05, 60)
RETENTION_DAYS = env.integer("LLM_RETENTION_DAYS", 400, 0, 36_500)
# A row that is gone would be entered, and counted, once more if its journal were read again: that reaches back a day or two.
if 0 < RETENTION_DAYS < 7:
    raise ConfigurationError(f"LLM_RETENTION_DAYS={RETENTION_DAYS}: write a whole number from 7 to 36500, or 0 to keep every row")
# Of API keys with `store_bodies`. Nothing of a request is kept longer than the request itself.
BODY_MAX_BYTES = env.integer("LLM_BODY_MAX_BYTES", 65_536, 0, 4 * 2**20)
BODY_QUEUE_BYTES = env.integer("LLM_BODY_QUEUE_BYTES", 32 * 2**20, 2**20, 2**30)
BODY_RETENTION_DAYS = min(env.integer("LLM_BODY_RETENTION_DAYS", 7, 1, 400), RETENTION_DAYS or 400)
MAX_LABELS_PER_DAY = env.integer("LLM_MAX_LABELS_PER_DAY", 500, 0, 100_000)
AUDIT_CHECKPOINTS = Path(env.text("LLM_AUDIT_CHECKPOINTS") or STATE_DIR / "audit-checkpoints.jsonl")
AUDIT_REFUSALS_PER_MINUTE = env.integer("LLM_AUDIT_REFUSALS_PER_MINUTE", 10, 1, 1000)
CONFIG_POLL_S = env.number("LLM_CONFIG_POLL_S", 1.0, 0.1, 60)
MAX_CONFIG_AGE_S = env.number("LLM_MAX_CONFIG_AGE_S", 3600, 0, 31_536_000)
ACCOUNTING = env.one_of("LLM_ACCOUNTING", "strict", "best_effort")
MAX_BODY_BYTES = env.integer("LLM_MAX_BODY_BYTES", 4 * 2**20, 2**10, 2**28)
# A document of the configuration comes back with the confirmation of its plan, packed, in a form.
CONFIG_FILE_MAX_BYTES = env.integer("LLM_CONFIG_FILE_MAX_BYTES", 2**20, 2**10, 2**24)
DATA_UPLOAD_MAX_MEMORY_SIZE = max(2_621_440, 2 * CONFIG_FILE_MAX_BYTES)
BODY_TIMEOUT_S = env.number("LLM_BODY_TIMEOUT_S", 30, 0.1, 3600)
BODY_BYTES_PER_S = env.integer("LLM_BODY_BYTES_PER_S", 2**10, 0, 2**20)
MIN_PROGRESS_BYTES = env.integer("LLM_MIN_PROGRESS_BYTES", 32, 1, 2**20)
MAX_STREAMS = env.integer("LLM_MAX_STREAMS", 400, 1, 100_000)
MAX_CONTROL_REQUESTS = env.integer("LLM_MAX_CONTROL_REQUESTS", 40, 1, 1000)
OTLP_ENDPOINT = env.url("OTEL_EXPORTER_OTLP_ENDPOINT")
ZIPKIN_ENDPOINT = env.url("OTEL_EXPORTER_ZIPKIN_ENDPOINT")
NACOS = nacos.read(env)
TRACE_RATIO = env.number("OTEL_TRACES_SAMPLER_ARG", 1, 0, 1)
TRACE_SERVICE_NAME = env.text("OTEL_SERVICE_NAME", "llmcontrol")
REPORTING_CURRENCY = env.text("LLM_CURRENCY") or DEFAULT_CURRENCY
if REPORTING_CURRENCY not in CURRENCIES:
    raise ConfigurationError(f"LLM_CURRENCY={REPORTING_CURRENCY}: {UNKNOWN_CURRENCY}")
BUDGET_LEASE_S = env.number("LLM_BUDGET_LEASE_S", 60, 6, 3600)
BUDGET_TIMEOUT_S = env.number("LLM_BUDGET_TIMEOUT_S", 5, 0.1, 60)
BUDGET_OUTPUT_TOKENS = env.integer("LLM_BUDGET_OUTPUT_TOKENS", 4096, 1, 10_000_000)
MAX_RETRIES = env.integer("MAX_RETRIES", 2, 0, 10)
RETRY_DELAY_S = env.number("RETRY_DELAY", 0.1, 0, 2)
MAX_RESPONSE_TOKENS = env.integer("MAX_RESPONSE_TOKENS", 0, 0, 10_000_000)
TEMPERATURE = env.number("OPENAI_TEMPERATURE", 1, 0, 2) if env.text("OPENAI_TEMPERATURE") else None
MAX_CONTEXT_TOKENS = env.integer("MAX_CONTEXT_TOKENS", 0, 0, 100_000_000)
QUEUE_TIMEOUT_S = env.number("LLM_QUEUE_TIMEOUT_S", 10, 0, 600)
MAX_HEAD_BYTES = env.integer("LLM_MAX_HEAD_BYTES", 32 * 2**10, 2**13, 2**20)
HEAD_TIMEOUT_S = env.number("LLM_HEAD_TIMEOUT_S", 10, 1, 600)
WRITE_TIMEOUT_S = env.number("LLM_WRITE_TIMEOUT_S", 60, 0.1, 3600)
IDEMPOTENCY_TTL_S = env.number("LLM_IDEMPOTENCY_TTL_S", 600, 0, 86_400)
IDEMPOTENCY_BYTES = env.integer("LLM_IDEMPOTENCY_BYTES", 32 * 2**20, 0, 2**32)
IDEMPOTENCY_WAIT_S = env.number("LLM_IDEMPOTENCY_WAIT_S", 60, 0, 3600)
CACHE_MAX_TTL_S = env.integer("LLM_CACHE_MAX_TTL_S", 86_400, 0, 604_800)
CACHE_BYTES = env.integer("LLM_CACHE_BYTES", 32 * 2**20, 0, 2**32)
CACHE_ENTRY_BYTES = env.integer("LLM_CACHE_ENTRY_BYTES", 256 * 2**10, 0, 2**24)
# Comments in streams; KEEP_ALIVE_S below is about idle connections.
SSE_KEEPALIVE_S = env.number("LLM_SSE_KEEPALIVE_S", 15, 0, 3600)
if 0 < SSE_KEEPALIVE_S < 1:
    raise ConfigurationError(f"LLM_SSE_KEEPALIVE_S={SSE_KEEPALIVE_S:g}: write a number from 1 to 3600, or 0 for no comments")
SHARED_LIMITS_BYTES = env.integer("LLM_SHARED_LIMITS_BYTES", 4 * 2**20, 2**16, 2**30)
# Longer than the pools of the usual clients keep an idle connection: they must close first, or they meet a closed one.
KEEP_ALIVE_S = env.integer("LLM_KEEP_ALIVE_S", 75, 1, 3600)
SHUTDOWN_GRACE_S = env.integer("LLM_SHUTDOWN_GRACE_S", 30, 1, 3600)
DRAIN_DELAY_S = env.number("LLM_DRAIN_DELAY_S", 0, 0, 300)
WORKER_SILENCE_S = env.number("LLM_WORKER_SILENCE_S", 15, 2, 600)
TASK_CONCURRENCY = env.integer("LLM_MAX_WORKERS", 50, 0, 10_000)
MAX_QUEUE_SIZE = env.integer("LLM_MAX_QUEUE_SIZE", 1000, 1, 10_000_000)
WORKER_PORT = env.integer("LLM_WORKER_PORT", 0, 0, 65535)
TASK_TIMEOUT_S = env.number("LLM_TASK_TIMEOUT", 300, 0.1, 86_400)
MAX_TASK_TIMEOUT_S = max(3600.0, TASK_TIMEOUT_S)
TASK_AGING_S = env.number("LLM_TASK_AGING_S", 600, 0, 86_400)
TASK_LEASE_S = env.number("LLM_TASK_LEASE_S", 20, 2, 600)
TASK_POLL_S = env.number("LLM_TASK_POLL_S", 1, 0.05, 60)
TASK_LIMITS = env.bounds("LLM_TASK_LIMITS", ("*", *KINDS), 1, 1_000_000)
WEBHOOK_TRIES = env.integer("LLM_WEBHOOK_TRIES", 10, 1, 10)
WEBHOOK_TIMEOUT_S = env.number("LLM_WEBHOOK_TIMEOUT_S", 10, 0.1, 60)
WEBHOOK_PER_HOST = env.integer("LLM_WEBHOOK_PER_HOST", 5, 1, 100)
WEBHOOK_POLL_S = env.number("LLM_WEBHOOK_POLL_S", 1, 0.05, 60)
WEBHOOK_OVERLAP_S = env.number("LLM_WEBHOOK_OVERLAP_S", 86_400, 0, 2_592_000)
WEBHOOK_KEEP_DAYS = env.integer("LLM_WEBHOOK_KEEP_DAYS", 30, 1, 3650)
LIST_INTERVAL_S = env.number("LLM_HEALTH_LIST_INTERVAL_S", 300, 0, 86_400)
LIST_TIMEOUT_S = env.number("LLM_HEALTH_LIST_TIMEOUT_S", 5, 0.1, 60)
PROBE_INTERVAL_S = env.number("LLM_HEALTH_PROBE_INTERVAL_S", 300, 0, 86_400)
PROBE_TIMEOUT_S = env.number("LLM_HEALTH_PROBE_TIMEOUT_S", 20, 0.1, 30)
PROBE_TOKENS = env.integer("LLM_HEALTH_PROBE_TOKENS", 5, 1, 100)
ALERT_INTERVAL_S = env.number("LLM_ALERT_INTERVAL_S", 15, 0, 3600)
ALERT_KEEP_DAYS = env.integer("LLM_ALERT_KEEP_DAYS", 90, 1, 3650)
EVENTS_POLL_S = env.number("LLM_EVENTS_POLL_S", 0.25, 0.01, 60)
EVENTS_KEEP_S = env.number("LLM_EVENTS_KEEP_S", 86_400, 60, 2_592_000)
MAX_CONNECTIONS = env.integer("LLM_MAX_CONNECTIONS", 10_000, 0, 1_000_000)
MAX_CONNECTIONS_PER_ADDRESS = env.integer("LLM_MAX_CONNECTIONS_PER_ADDRESS", 1000, 0, 1_000_000)


def _networks(name: str) -> list[tuple[str, int | None]]:
    """`CIDR:port` or `CIDR:*` → (CIDR, port or None for every port)."""
    allowed: list[tuple[str, int | None]] = []
    for item in env.items(name):
        network, _, port = item.rpartition(":")
        try:
            cidr = str(ipaddress.ip_network(network.strip("[]"), strict=True))
        except ValueError:
            cidr = ""
        if not cidr or not (port == "*" or (port.isdecimal() and 0 < int(port) < 65536)):
            raise ConfigurationError(f"{name}: {item!r} is not CIDR:port, e.g. 127.0.0.0/8:11434 or 10.1.0.0/16:*")
        allowed.append((cidr, None if port == "*" else int(port)))
    return allowed


OUTBOUND_ALLOW = _networks("OUTBOUND_ALLOW")
WEBHOOK_ALLOW = _networks("WEBHOOK_ALLOW")
CUSTOM_ADAPTERS = env.items("LLM_CUSTOM_ADAPTERS")
try:
    TRUSTED_PROXIES = [ipaddress.ip_network(item) for item in env.items("LLM_TRUSTED_PROXIES")]
except ValueError as exc:
    raise ConfigurationError(f"LLM_TRUSTED_PROXIES: {exc}; write networks such as 10.1.0.0/16, separated by commas") from None


# Admin --------------------------------------------------------------------------------------------------------------
LOGIN_REDIRECT_URL = "admin:index"
