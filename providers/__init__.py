"""Whom we can call: vendors, their credentials, and the adapters that speak their wires."""
