"""One file per dialect and transport: bytes in, bytes out."""
