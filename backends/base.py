"""The contract of a backend: six calls, six optional ones with defaults, and four meanings of failure.

A backend object is one place (an account and region, or this machine). It knows no pools'
rules, keeps no memory of its own and decides nothing. Any call may raise `CallFailed`, that is
`TryLater` or `BackendError`; every other exception is a defect of the backend.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from backends.boot.spec import Boot
from backends.errors import BackendError
from schemas.desired import BackendConfig
from schemas.host import Host
from schemas.instance import Seen
from schemas.launch import LaunchAnswer, Request, TerminateAnswer
from schemas.leftover import Leftover
from schemas.offer import Offer
from schemas.resources import Need, Where


class Backend(Protocol):
    """One place. Thread-safe: calls may come concurrently."""

    place: str

    def identity(self) -> str:
        """Which account, project or machine this is; two places never share one by accident."""

    def offers(self, needs: Sequence[Need], where: Where) -> Sequence[Offer]:
        """What can be had, at least all that fit one of `needs` (any, where there is none); `price` set where known.

        May come from a catalog.
        """

    def prepare(self, request: Request, offer: Offer) -> Request:
        """Everything looked up and rendered into `inputs` and `digest`. Makes nothing."""

    def launch(self, request: Request) -> Mapping[str, LaunchAnswer]:
        """Make the machines of `request`, and answer for each of our ids.

        The same request again makes nothing new, except where the type's `launch` is `once`. `Made` is a hint: a
        launch is believed when `instances` shows it. Only a refusal promises that nothing was made: `Refused` of
        its id; a raised `NoCapacity`, `QuotaExceeded` or other `BackendError` of every id. A raised `TryLater`
        and an id without an answer are `Unknown`.
        """

    def instances(self, ids: Sequence[str] | None = None) -> Sequence[Seen]:
        """Everything with our project's tag, remembered or not, or just these external ids.

        Ended ones appear as ended or are absent. The answer may lag behind `launch` and `terminate`.
        """

    def terminate(self, ids: Sequence[str], *, generation: int = 0) -> Mapping[str, TerminateAnswer]:
        """Ask for the end of machines, and answer for each external id; one that is gone already is `Ending`.

        `Ending` is accepted, not ended: only `instances` says ended. A raised `BackendError` refuses all of them; a
        raised `TryLater` and an id without an answer are `Unknown`. A place whose machines remember generations
        raises `Behind` where one saw a higher one; 0 asks for no such look.
        """

    def notes(self) -> Sequence[str]:
        """Return what a person should know of what this backend did, a sentence each, none of them twice."""

    def clock(self) -> int | None:
        """Return by how many seconds our clock was ahead of the backend's at its last listing. `None`: not known."""

    def allow_our_address(self) -> bool:
        """Open the firewall to our present address, for machines that are reached directly.

        True where a rule was added; false where none was missing, or none is wanted.
        """

    def leftovers(self) -> Sequence[Leftover]:
        """List everything with the project's tag that is no instance, used or not.

        A kind that may not be listed keeps none of the others from being listed: `PartlyListed`.
        """

    def remove(self, leftover: Leftover) -> None:
        """Remove one of `leftovers`. One that is gone is no error; one in use raises `BackendError`."""

    def confirm_ended(self, living: Collection[str]) -> None:
        """Tell the backend that every end that it reported is stored; it may forget those instances.

        Instances whose ids (ours) are in `living` are not stored as ended, and must be reported again.
        """

    def why_copied(self) -> str:
        """Return why our state must not be used here: it is a copy of one that still exists. "": it may be used.

        Asked before each apply of machines whose type has the scope `host`.
        """


class BackendDefaults:
    """The optional calls, for a backend that has nothing to do there. Every backend inherits them."""

    def notes(self) -> Sequence[str]:
        return ()

    def clock(self) -> int | None:
        return None

    def allow_our_address(self) -> bool:
        return False

    def leftovers(self) -> Sequence[Leftover]:
        return ()

    def remove(self, leftover: Leftover) -> None:
        raise BackendError(f"{leftover.place} cannot remove {leftover.kind} {leftover.id}")

    def confirm_ended(self, living: Collection[str]) -> None:
        return

    def why_copied(self) -> str:
        return ""


class Setting(Protocol):
    """What a backend may need of its surroundings, passed in by the caller."""

    @property
    def project(self) -> str: ...
    @property
    def lineage(self) -> str: ...
    @property
    def state_address(self) -> str: ...
    @property
    def now(self) -> Callable[[], float]: ...
    @property
    def boot(self) -> Callable[[str], Boot]:
        """Launch id -> what its machines are born with, the same each time. `BackendError` where no key is here."""


Connect = Callable[[BackendConfig, str, Setting], Backend]


LIMIT = 45.0  # seconds; ending the jobs of a server may take 30


class Said(NamedTuple):
    """What a program there answered. `noise` is what the login shell printed before; `steps`: name -> seconds.

    `unsupported` are directives of the user's own ssh_config that hold on the way there and are not supported.
    """

    code: int
    out: bytes
    err: str
    noise: bytes
    host_key: str
    steps: Mapping[str, float]
    unsupported: tuple[str, ...] = ()


class Reach(Protocol):
    """The way to a server. `rules` are the sh functions that know a job's processes."""

    @property
    def rules(self) -> str: ...
    @property
    def who(self) -> str: ...

    def ask(
        self, host: Host, program: str, *, args: Sequence[str] = (), stdin: bytes = b"", timeout: float = LIMIT
    ) -> Said:
        """Run sh text there. Raises `TryLater` where nothing came back, `BackendError` for another key than pinned."""
