"""A launch: what is written before machines are asked for, until they are seen."""

from __future__ import annotations

from typing import Literal

from schemas.access import Way
from schemas.base import Mib, Price, Seconds, Value

Meaning = Literal["capacity", "quota", "permanent"]


class Made(Value, frozen=True, kw_only=True):
    """The backend accepted the request for one machine. A hint: only a listing proves that it exists."""

    external_id: str = ""
    """The vendor's id, "" where the answer did not hold it."""


class Refused(Value, frozen=True, kw_only=True):
    """A promise that this machine was not made, and will not be made of this request."""

    meaning: Meaning
    """`capacity`: not this offer, now. `quota`: a limit of the account. `permanent`: asking again will not help."""
    why: str
    """The vendor's own words, cleaned."""
    retry_after: Seconds = 0
    """Seconds until asking again makes sense; 0 where the vendor does not say."""
    quota: str = ""
    """Which quota (`balance` among them), for the meaning `quota`."""


class Unknown(Value, frozen=True, kw_only=True):
    """No answer that can be trusted: the machine may have been made."""

    why: str
    retry_after: Seconds = 0
    """Seconds that the vendor asks to wait before the next request; 0 where it does not say."""


LaunchAnswer = Made | Refused | Unknown


class Ending(Value, frozen=True, kw_only=True):
    """The backend accepted to end a machine, or it is gone already. Only a listing says that it ended."""


TerminateAnswer = Ending | Refused | Unknown


class Request(Value, frozen=True, kw_only=True):
    """What `prepare` looked up and rendered: a pure value; the same request makes nothing new.

    `ids` are our instance ids, in the order of the place's index. `token` is at most 64
    ASCII characters. `inputs` are the looked-up facts (image, subnet …), never a secret;
    `digest` is of the full rendering, so that a rendering that changed is noticed.
    `not_after` ends the request's life: later it may not be sent again. `price` is its offer's, `max_price` what
    a person will pay at most. `disk` is that of each machine (0: its place's usual one). `together`: they belong to a
    gang or a cluster, close to each other. Launches that share the word `near` belong in one zone, the one of that
    name if there is one; `avoid` are zones that had no capacity a moment ago. Once prepared, `zone` is where they go,
    "" where the place chooses. `way` is how they are reached, as it was when this was written.
    """

    place: str
    launch: str
    token: str
    ids: tuple[str, ...]
    names: tuple[str, ...]
    pool: str
    instance_type: str
    zone: str = ""
    spot: bool = False
    price: Price | None = None
    max_price: Price | None = None
    disk: Mib = 0
    reservation: str = ""
    together: bool = False
    way: Way = Way()
    near: str = ""
    avoid: tuple[str, ...] = ()
    handle: str = ""
    """The vendor's own id of what is offered (`Offer.handle`)."""
    image: str = ""
    """The image of each machine, where the type's instances are containers of one; "" where they are not."""
    deadline: int = 0
    """Unix time at which the backend itself ends the machine, where its type has an own deadline; 0: never."""
    tags: tuple[tuple[str, str], ...] = ()
    lineage: str = ""
    generation: int = 0
    project: str = ""
    not_after: int = 0
    inputs: tuple[tuple[str, str], ...] = ()
    digest: str = ""


class Intent(Value, frozen=True, kw_only=True):
    """An open launch. It closes when each of its ids was *seen*, or is proven never to come.

    `hints` are external ids that the call returned: a help for look-ups, no proof.
    `sent` is how often the effect was begun. `refused`: why some of its machines were refused for good; it is then
    not sent again, and its other machines are only looked for.
    """

    id: str
    request: Request
    opened_at: int
    sent: int = 0
    hints: tuple[str, ...] = ()
    refused: str = ""
    send_at: int | None = None
    """Unix time for which its last request was scheduled, written before it is sent, where its type schedules
    requests (`launch: once`, `launch_interval`): from then on it may have been sent."""
