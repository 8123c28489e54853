"""What extensions may listen to: sent in the thread that notices, after it is on record. A receiver that raises is logged by Django."""

from __future__ import annotations

from django.dispatch import Signal

# process, provider_id, provider, open (list of texts): the breakers of one provider that are open in one process have changed.
breakers_changed = Signal()
# budget: core.config.BudgetSpec, percent, spent (in its units): a budget has reached 50, 80 or 100 % in this period.
budget_reached = Signal()
# ids: which provider keys are meant. A receiver answers with what people know them by: id → name.
provider_key_names_wanted = Signal()
# row: models.RequestLog, user: for the page of one request. A receiver answers with what that user may do with it: [(label, URL)].
request_links_wanted = Signal()
