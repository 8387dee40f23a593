"""Exceptions that end a command with an exit code."""

from __future__ import annotations


class Fail(Exception):
    """An expected error: one line `what, where; next command`. The command ends with `code`."""

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Finished(Exception):
    """The command is over with this exit code, and everything was said."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code
