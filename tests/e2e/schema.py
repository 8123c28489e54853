"""OpenAI's published JSON schema as the judge of what we answer."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator


@functools.cache
def _definitions(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())["$defs"]


class Schema:
    def __init__(self, shared_dir: Path) -> None:
        self._path = shared_dir / "spec" / "openai-chat.schema.json"

    def check(self, name: str, value: Any) -> None:
        """Fails with every complaint, each with its place."""
        validator = Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": _definitions(self._path)})
        complaints = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
        assert not complaints, f"no valid {name}: {complaints} in {json.dumps(value)[:2000]}"
