"""Judge requests and answers by a vendor's own OpenAPI document, in the folder that `DSTACK_TEST_SPECS` names.

Objects of requests are closed: a field that the document does not have is refused, as a misspelled one would be.
"""

from __future__ import annotations

import copy
import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

FOLDER = os.environ.get("DSTACK_TEST_SPECS", "")
ABSENT = "DSTACK_TEST_SPECS is not set"


def document(name: str) -> Path | None:
    """The document of that file name, `None` where it does not lie there."""
    path = Path(FOLDER, name)
    return path if FOLDER and path.is_file() else None


class Judge:
    """Of one document; `base` is the leading path that its paths lack. `close`: its requests are open as it is."""

    def __init__(self, path: Path, *, base: str = "", close: bool = True) -> None:
        self._open = json.loads(path.read_text("utf-8"))
        self._closed = _closed(copy.deepcopy(self._open)) if close else self._open
        self._base = base

    def request(self, method: str, path: str, body: Any) -> str:
        """What is wrong with it; "" for nothing."""
        operation = self._operation(self._closed, method, path)
        if operation is None:
            return f"the document has no {method} {path}"
        schema = _schema(operation.get("requestBody", {}))
        if schema is None:
            return "" if body is None else f"{method} {path} takes no body"
        return self._wrong(self._closed, schema, body)

    def answer(self, method: str, path: str, status: int, body: Any) -> str:
        """What is wrong with an answer of our double; "" for nothing."""
        operation = self._operation(self._open, method, path)
        said = (operation or {}).get("responses", {}).get(str(status))
        if said is None:
            return f"the document has no answer {status} to {method} {path}"
        if "$ref" in said:
            said = _at(self._open, said["$ref"])
        schema = _schema(said)
        return "" if schema is None else self._wrong(self._open, schema, body)

    def _wrong(self, whole: Any, schema: Any, body: Any) -> str:
        checked = Draft202012Validator({**schema, "components": whole.get("components", {})})
        return "; ".join(f"{error.json_path}: {error.message[:300]}" for error in checked.iter_errors(body))

    def _operation(self, whole: Any, method: str, path: str) -> Any:
        inner = path.removeprefix(self._base)
        for known, operations in whole["paths"].items():
            pattern = re.sub(r"\{[^}]*\}", "[^/]+", known)
            if re.fullmatch(pattern, inner) and method.lower() in operations:
                return operations[method.lower()]
        return None


@cache
def judge(name: str, *, base: str = "", close: bool = True) -> Judge | None:
    """The judge by that document, `None` where it is absent."""
    path = document(name)
    return Judge(path, base=base, close=close) if path else None


def _schema(said: Any) -> Any:
    content = said.get("content", {})
    return next((one["schema"] for kind, one in content.items() if "json" in kind and "schema" in one), None)


def _at(whole: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        whole = whole[part.replace("~1", "/").replace("~0", "~")]
    return whole


def _closed(node: Any) -> Any:
    """Every object that has properties and does not say what else it takes takes nothing else."""
    if isinstance(node, dict):
        if "properties" in node and node.get("type") == "object" and not _says(node):
            node["additionalProperties"] = False
        for key, value in node.items():
            if key not in ("allOf", "examples", "example"):
                _closed(value)
    elif isinstance(node, list):
        for value in node:
            _closed(value)
    return node


def _says(node: dict[str, Any]) -> bool:
    return bool({"additionalProperties", "unevaluatedProperties", "allOf", "anyOf", "oneOf"} & node.keys())
