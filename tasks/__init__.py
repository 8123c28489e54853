"""Queued work: a task is a row, and whoever claims it answers it through the gateway."""
