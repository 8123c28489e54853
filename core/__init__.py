"""Plain words that every other package speaks: no Django here, and no I/O except beneath `core.outbound`."""
