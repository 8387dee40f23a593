"""Ask the program of a kubeconfig's `exec` (EKS, GKE, AKS) for a credential, and keep it until it expires."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backends.errors import BackendError, LackingHere, TryLater

PATIENCE = 60
EARLY = 60  # seconds before its end at which a credential is renewed


class ExecPlugin:
    """`entry` is the mapping below `exec`. Thread-safe."""

    def __init__(self, entry: Mapping[str, Any], *, folder: Path) -> None:
        self._entry, self._folder, self._lock = entry, folder, threading.Lock()
        self._kept: Mapping[str, Any] | None = None

    def credential(self) -> Mapping[str, Any]:
        """The `status` of its answer. Raises `LackingHere` without the program, `TryLater` where it does not answer."""
        with self._lock:
            if self._kept is None or _ends_soon(self._kept):
                self._kept = self._asked()
            return self._kept

    def _asked(self) -> Mapping[str, Any]:
        command, version = str(self._entry.get("command") or ""), str(self._entry.get("apiVersion") or "")
        relative = "/" in command and not command.startswith("/")
        program = str(self._folder / command) if relative else shutil.which(command)
        if not program:
            raise LackingHere(
                f"the kubeconfig needs the program {command}. {self._entry.get('installHint') or ''}".strip()
            )
        given = {str(one.get("name")): str(one.get("value")) for one in self._entry.get("env") or ()}
        about = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
        try:
            answer = subprocess.run(  # noqa: S603 - the user's own kubeconfig names it
                [program, *map(str, self._entry.get("args") or ())],
                env={**os.environ, **given, "KUBERNETES_EXEC_INFO": json.dumps(about)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            raise TryLater(f"{command}, which the kubeconfig names, did not answer in {PATIENCE} s") from None
        if answer.returncode:
            said = answer.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no reason given"]
            raise LackingHere(f"{command}, which the kubeconfig names, gave no credential: {said[0][:200]}")
        try:
            return dict(json.loads(answer.stdout)["status"])
        except (ValueError, KeyError, TypeError):
            raise BackendError(f"{command}, which the kubeconfig names, answered without an ExecCredential") from None


def _ends_soon(credential: Mapping[str, Any]) -> bool:
    try:
        end = datetime.fromisoformat(str(credential["expirationTimestamp"]))
    except (KeyError, ValueError):
        return False
    return (end - datetime.now(UTC)).total_seconds() < EARLY
