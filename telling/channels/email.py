"""E-mail, through Django's mail settings (EMAIL_* in docs/configuration.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from smtplib import SMTPException

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage
from django.core.validators import validate_email

from monitoring.threads import in_one_line
from telling.carrier import Carrier
from telling.channels.base import Message, Target
from telling.outcome import Outcome

_MAX_RECIPIENTS = 50


class Email:
    label = "E-mail"
    fields: Mapping[str, bool] = {"recipients": True}

    def problem(self, target: Target) -> tuple[str, str] | None:
        if len(target.recipients) > _MAX_RECIPIENTS:
            return "recipients", f"Write at most {_MAX_RECIPIENTS} addresses, or that of a mailing list."
        for address in target.recipients:
            try:
                validate_email(address)
            except ValidationError:
                return "recipients", f"{address[:80]} is no e-mail address; write one address a line."
        return None

    async def send(self, target: Target, message: Message, message_id: str, carrier: Carrier) -> Outcome:
        if not settings.EMAIL_HOST:
            return Outcome(error="There is no mail server to give it to: an operator sets EMAIL_HOST.", final=True)
        mail = EmailMessage(message.title, message.text, to=list(target.recipients), headers={"Message-ID": f"<{message_id}@llmcontrol>"})
        began = carrier.wall()
        try:
            await asyncio.to_thread(mail.send)
        except (SMTPException, OSError) as exc:
            where = f"{settings.EMAIL_HOST}:{settings.EMAIL_PORT}"
            return Outcome(error=f"The mail server {where} did not take it ({in_one_line(exc)[:200]}).", duration_s=carrier.wall() - began)
        return Outcome(duration_s=carrier.wall() - began)
