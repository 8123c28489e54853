"""What extensions may listen to, beside `tasks.signals` and `monitoring.signals`."""

from __future__ import annotations

from django.dispatch import Signal

# After the commit: webhooks were added, or a dead letter is to be sent again.
webhooks_due = Signal()
# webhook: telling.models.Webhook. It will not be tried again by itself. In the delivering process' database thread.
webhook_dead = Signal()
