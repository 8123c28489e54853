"""F31: nothing is sent to a vendor whose certificate does not prove who it is."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.faults.backends import ON_SQLITE
from tests.faults.history import History
from tests.faults.judge import Judge
from tests.faults.stage import Stage
from tests.live import ROOT

PACKAGES = ("core", "monitoring", "providers", "models_registry", "access", "gateway", "llmcontrol")
SWITCHED_OFF = re.compile(
    r"CERT_NONE|CERT_OPTIONAL|verify\s*=\s*False|check_hostname\s*=\s*False|_create_unverified_context|ssl\s*=\s*False"
)
NEVER_OPENS = {"fail_max": 1000, "reset_timeout_s": 1}


@ON_SQLITE
def test_f31_no_request_leaves_before_the_certificate_is_verified(new_stage: Callable[..., Stage], judge: Judge) -> None:
    stage = new_stage(workers=1)
    vendor = stage.tls_vendor()
    https = {**vendor.tls, "plain": f"https://127.0.0.1:{stage.machine.port}/v1"}  # our own server speaks HTTP alone
    aliases = {what: stage.model("ok@tokens=6", provider=stage.provider(base_url=url, breaker=NEVER_OPENS)) for what, url in https.items()}
    unknown = asked(stage, *aliases.values())  # nobody has told the machine of the authority that signed the good one
    stage.machine.env["SSL_CERT_FILE"] = str(vendor.ca_file)
    stage.machine.restart()
    good = aliases.pop("good")
    refused = asked(stage, *aliases.values())
    judge("F31", "requests sent before verification", len(vendor.ledger()), equals=0)
    answered = asked(stage, good)

    failed = unknown + refused
    named = failed.where(lambda row: (row.status, row.code) == (502, "upstream_tls"))
    judge("F31", "502 upstream_tls", 100 * len(named) / len(failed), at_least=100, unit="%", why=str(failed.statuses()))
    figures = stage.check(failed)
    judge("F31", "ERRQ", figures.errq_pct, at_least=100, unit="%", why=figures.explain())
    judge("F31", "answers where the authority is known", len(answered.ok), equals=2, why=str(answered.statuses()))
    assert len(vendor.ledger()) == 2


@ON_SQLITE
def test_f31_authorities_of_one_provider_vouch_for_it_alone(new_stage: Callable[..., Stage], judge: Judge) -> None:
    """They are entered with the provider; another at the very same address believes nothing."""
    stage = new_stage(workers=1)
    vendor = stage.tls_vendor()
    theirs = {"breaker": NEVER_OPENS, "ca_certificates": vendor.ca_file.read_text()}
    good = stage.model("ok@tokens=6", provider=stage.provider(base_url=vendor.tls["good"], **theirs))
    others = [
        stage.model("ok@tokens=6", provider=stage.provider(base_url=vendor.tls[what], **theirs)) for what in ("wrong-name", "expired")
    ]
    others.append(stage.model("ok@tokens=6", provider=stage.provider(base_url=vendor.tls["good"], breaker=NEVER_OPENS)))
    answered, refused = asked(stage, good), asked(stage, *others)
    named = refused.where(lambda row: (row.status, row.code) == (502, "upstream_tls"))
    judge("F31", "answers by an authority of the provider's own", len(answered.ok), equals=2, why=str(answered.statuses()))
    judge("F31", "502 upstream_tls beside it", 100 * len(named) / len(refused), equals=100, unit="%", why=str(refused.statuses()))
    assert len(vendor.ledger()) == 2


def asked(stage: Stage, *aliases: str) -> History:
    return History(stage.ask(alias, stream=stream) for alias in aliases for stream in (False, True))


def test_f31_nothing_switches_verification_off(judge: Judge) -> None:
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert len(sources) > 100
    found = [f"{path.relative_to(ROOT)}: {line}" for path in sources for line in path.read_text().splitlines() if SWITCHED_OFF.search(line)]
    judge("F31", "places that switch verification off", len(found), equals=0, why="\n".join(found))
