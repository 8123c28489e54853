"""Every failure a caller can meet, as one tree.

    GatewayError
    ├── CallerError                   the caller must change something; the vendor was never blamed
    │   ├── InvalidRequest            400  malformed JSON, a wrong type, a parameter out of range
    │   │   ├── ContextTooLong        400  the prompt does not fit the model's window
    │   │   ├── ContentBlocked        400  the vendor refused the content
    │   │   └── BodyTooLarge          413  more bytes than MAX_BODY_BYTES
    │   ├── RequestTimeout            408  the body did not arrive in time
    │   ├── NotAuthenticated          401  no key, an unknown key, a revoked or expired key
    │   ├── NotPermitted              403  the key may not do this
    │   ├── UnknownModel              404  no model of that name for this key
    │   ├── UnknownPrompt             404  no prompt template of that name or version for this key
    │   ├── UnknownRoute              404  no such URL
    │   ├── CallerLimited             429  this caller's rate, token or concurrency limit
    │   ├── ModelUnpriced             403  no price is known, and money is limited: another model of the chain is asked
    │   └── BudgetExhausted           429  this caller's money, tokens or requests are used up
    │       └── ProviderBudgetExhausted    429  what we may spend at a provider is: another target is asked
    ├── ProviderError                 something at, or on the way to, a vendor
    │   ├── ProviderRefused           400  the vendor says the request itself is wrong
    │   ├── ProviderLimited           429  the vendor's rate limit, or our limit on that vendor
    │   ├── ProviderRejectedOurKey    502  the vendor refused our credential, or our account there is empty
    │   ├── ProviderLacksModel        502  the vendor does not know the model that the admin configured
    │   ├── ProviderTimeout           504  no connection, first byte, next event or end in time
    │   ├── ProviderUnreachable       502  refused, reset, DNS
    │   │   └── ProviderTlsFailed     502  no trusted TLS connection
    │   ├── OutboundRefused           502  our own guard: the address is not public and not in OUTBOUND_ALLOW
    │   ├── ProviderFault             502  the vendor answered 5xx
    │   ├── ProviderNonsense          502  a success that is not one: HTML, cut JSON, a stream with no end
    │   └── ProviderPaused            503  breaker open, provider disabled, no target left
    ├── ServerBusy                    503  this process is at its own limit, draining or not ready
    ├── AccountingUnavailable         503  the journal cannot be written
    ├── BudgetUnavailable             503  the database does not say whether a budget allows it
    └── ClientGone                    499  the client left; logged, never sent

The class carries the facts, so that retry, breaker and doors read one source:
`http_status`, `code` and `type` (what an OpenAI client sees), `retryable` (may another target be tried),
`blames_provider` (does the breaker count it as a failure).
"""

from __future__ import annotations

from typing import ClassVar


class GatewayError(Exception):
    """Base of all. `message` is a plain sentence for the caller: it never holds a secret or a vendor's raw body."""

    http_status: ClassVar[int] = 500
    code: ClassVar[str | None] = "server_error"
    type: ClassVar[str] = "server_error"
    retryable: ClassVar[bool] = False
    blames_provider: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        detail: str | None = None,
    ) -> None:
        """`param` names the offending field, `retry_after_s` is the true wait, `detail` is for our own log only.

        `request_id` is set by the door that answers with it, for dialects whose error bodies name the request.
        """
        super().__init__(message)
        self.request_id = ""
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.detail = detail


class CallerError(GatewayError):
    http_status = 400
    type = "invalid_request_error"
    code: ClassVar[str | None] = None


class InvalidRequest(CallerError):
    code = "invalid_request"


class ContextTooLong(InvalidRequest):
    code = "context_length_exceeded"


class ContentBlocked(InvalidRequest):
    code = "content_policy_violation"


class BodyTooLarge(InvalidRequest):
    http_status = 413
    code = "request_too_large"


class RequestTimeout(CallerError):
    http_status = 408
    code = "request_timeout"


class NotAuthenticated(CallerError):
    http_status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class NotPermitted(CallerError):
    http_status = 403
    type = "permission_error"
    code = "not_permitted"


class UnknownModel(CallerError):
    http_status = 404
    code = "model_not_found"


class UnknownPrompt(CallerError):
    http_status = 404
    code = "prompt_not_found"


class UnknownRoute(CallerError):
    http_status = 404
    code = "unknown_url"


class CallerLimited(CallerError):
    http_status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class BudgetExhausted(CallerError):
    http_status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"


class ProviderBudgetExhausted(BudgetExhausted):
    retryable = True


class ModelUnpriced(CallerError):
    http_status = 403
    type = "permission_error"
    code = "model_price_unknown"
    retryable = True


class ProviderError(GatewayError):
    """`vendor_status` is the HTTP status the vendor sent, 0 where there was none. `ask_again` False = the vendor said
    (`x-should-retry: false`) that the same call will fail again; another vendor may still answer it."""

    http_status = 502
    type = "upstream_error"
    code = "upstream_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        detail: str | None = None,
        vendor_status: int = 0,
    ) -> None:
        super().__init__(message, param=param, retry_after_s=retry_after_s, detail=detail)
        self.vendor_status = vendor_status
        self.ask_again = True


class ProviderRefused(ProviderError):
    http_status = 400
    type = "invalid_request_error"
    code = "upstream_refused"


class ProviderLimited(ProviderError):
    http_status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    retryable = True


class ProviderRejectedOurKey(ProviderError):
    code = "upstream_credentials_exhausted"
    retryable = True


class ProviderLacksModel(ProviderError):
    code = "upstream_model_not_found"
    retryable = True


class ProviderTimeout(ProviderError):
    http_status = 504
    code = "upstream_timeout"
    retryable = True
    blames_provider = True


class ProviderUnreachable(ProviderError):
    code = "upstream_unreachable"
    retryable = True
    blames_provider = True


class ProviderTlsFailed(ProviderUnreachable):
    code = "upstream_tls"


class OutboundRefused(ProviderError):
    code = "upstream_address_refused"
    retryable = True


class ProviderFault(ProviderError):
    code = "upstream_error"
    retryable = True
    blames_provider = True


class ProviderNonsense(ProviderError):
    code = "upstream_invalid_response"
    retryable = True
    blames_provider = True


class ProviderPaused(ProviderError):
    http_status = 503
    code = "upstream_paused"
    retryable = True


class ServerBusy(GatewayError):
    http_status = 503
    code = "server_busy"


class AccountingUnavailable(GatewayError):
    http_status = 503
    code = "accounting_unavailable"


class BudgetUnavailable(GatewayError):
    http_status = 503
    code = "budget_unavailable"


class ClientGone(GatewayError):
    http_status = 499
    code = "client_closed_request"


class ConfigurationError(Exception):
    """A setting or row that cannot work. Says which one and what to write instead; the process does not start."""
