"""Telling others what happened: webhooks to their servers, events to their sockets."""
