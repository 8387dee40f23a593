"""What an instance is made with: its first host key, who may log in, and its self-termination timer.

Everything secret in it is derived from the project's key and the launch's id whenever it is needed, and stored nowhere.
"""

from __future__ import annotations

from schemas.base import Seconds, Value

LOGIN = "dstack"
FOLDER = ".dstack-host"
"""Ours on such a machine, below its login's home: what the runner calls the host's folder."""
BASE = "/var/lib/dstack"
"""The dead-man's folder there."""


class DeadMan(Value, frozen=True, kw_only=True):
    """`first`: how soon after its first boot a tick must have reached it; `grace` is given on top of each lease."""

    first: Seconds = 600
    grace: Seconds = 900


class Boot(Value, frozen=True, kw_only=True):
    """Of one launch. `host_key_private` is OpenSSH's text, always the same; `host_key_public` is `ssh-ed25519 AAAA…`.

    `authorized_keys` may log in as `user`, who is made where the image has none of that name.
    """

    host_key_private: str
    host_key_public: str
    authorized_keys: tuple[str, ...]
    deadman: DeadMan = DeadMan()
    user: str = LOGIN

    def __repr__(self) -> str:
        return f"Boot({self.host_key_public!r}, …)"
