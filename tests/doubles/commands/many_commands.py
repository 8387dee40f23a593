"""Many commands in one process, for inputs by the hundred: a process for each would take a second, not a hundredth.

python many_commands.py      reads lines of JSON, ["apply", "-y"], and answers each with [code, out, err]
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys

from reconciler.cli.session import run_session
from tests.doubles.commands.command import Folder, Ran


class Commands:
    """`dstack`, again and again, in a project's folder."""

    def __init__(self, folder: Folder) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=folder.root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**folder.env, "PYTHONPATH": folder.env["PYTHONPATH"]},
        )

    def dstack(self, *args: str) -> Ran:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(args), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, f"the process ended under {args}"
        return Ran(*json.loads(answer))

    def close(self) -> None:
        self._process.communicate()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_session(json.loads(line))
        said = [stream.buffer.getvalue().decode(errors="replace") for stream in (out, err)]  # type: ignore[attr-defined]
        print(json.dumps([code, *said]), file=answers, flush=True)


if __name__ == "__main__":
    main()
