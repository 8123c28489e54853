"""The hot path. Read `pipeline.py` first."""
