"""The composition root: settings, URLs, and the ASGI application that joins both planes. Nobody imports it."""

VERSION = "0.1.0"
