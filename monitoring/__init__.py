"""What happened: the journal, the usage ledger, request logs, metrics."""
