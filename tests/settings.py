"""The product's settings with the secrets a test needs. What else differs only makes the tests quicker."""

import base64
import os
import tempfile

os.environ.setdefault("SECRET_KEY", "test-secret-key-of-more-than-thirty-two-characters")
os.environ.setdefault("KEY_ENCRYPTION_KEYS", "1:" + base64.b64encode(bytes(range(32))).decode())
os.environ.setdefault("API_KEY_PEPPER", "test-pepper-of-more-than-thirty-two-characters")
if "LLM_STATE_DIR" not in os.environ:
    os.environ["LLM_STATE_DIR"] = tempfile.mkdtemp(prefix="llmcontrol-test-")

from llmcontrol.settings import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # what is tested is who gets in, not how long a hash takes
WHITENOISE_AUTOREFRESH = True  # a static file is looked for when it is asked for; each test client would list all of them first
