"""The product's settings with the secrets a test needs; nothing else differs."""

import base64
import os
import tempfile

os.environ.setdefault("SECRET_KEY", "test-secret-key-of-more-than-thirty-two-characters")
os.environ.setdefault("KEY_ENCRYPTION_KEYS", "1:" + base64.b64encode(bytes(range(32))).decode())
os.environ.setdefault("API_KEY_PEPPER", "test-pepper-of-more-than-thirty-two-characters")
if "LLM_STATE_DIR" not in os.environ:
    os.environ["LLM_STATE_DIR"] = tempfile.mkdtemp(prefix="llmcontrol-test-")

from llmcontrol.settings import *  # noqa: F403
