"""The contract of every store of the state: compare-and-swap on content, no lock that outlives its holder."""

from __future__ import annotations

from typing import Protocol

from schemas.state import State


class Store(Protocol):
    """One project's state, somewhere. A token is a digest of the stored bytes, so a hand edit is noticed too.

    `address` is where it lies, for people and for whoever must tell two states apart.
    `notes` are things that a person should hear once, one sentence each.
    """

    address: str
    notes: list[str]

    def read(self) -> tuple[State | None, str]:
        """The state and its token; `(None, "")` where there is none: missing, which is not empty."""

    def write(self, state: State, token: str) -> str:
        """Store exactly `state` where `token` still holds, else `StateMoved`. The token "" creates, exclusively.

        The new token. When it returns, the state survives a loss of power; when it raises, the old one is intact.
        A state of an older format is refused (`reconciler.store.format_upgrade`).
        """

    def keep_copy(self, name: str) -> str:
        """Copy the stored bytes, as they are, beside the state; `name` tells the copy from others. Its address."""

    def supersede(self, state: State, *, now: int) -> str:
        """Store `state` over whatever is there, readable or not, which is kept: its address, "" where nothing was.

        For a person who repairs; `StateMoved` where somebody wrote meanwhile.
        """

    def raw(self) -> tuple[bytes, str]:
        """The document as it is, readable or not, and its token; `(b"", "")` where there is none."""

    def replace_raw(self, data: bytes, token: str) -> str:
        """Store these bytes where `token` still holds, whatever they say: a seal. The new token, or `StateMoved`."""

    def date(self) -> int | None:
        """What time it is where the state lies (epoch seconds), asked now; `None` where that clock is ours.

        One that does not say is named in `notes`.
        """
