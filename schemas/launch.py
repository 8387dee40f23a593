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
    """A launch, fully rendered: a pure value. Sending an equal request again makes nothing new, except where the type
    launches `once`.
    """

    place: str
    """Key of the place."""
    launch: str
    """Id of the launch."""
    token: str
    """Idempotency token, at most 64 ASCII characters. Unused where the type has none."""
    ids: tuple[str, ...]
    """Our instance ids, in the order of the backend's index."""
    names: tuple[str, ...]
    """Names of the instances, in the same order."""
    pool: str
    instance_type: str
    zone: str = ""
    """Once prepared: where the machines will be; "": the backend chooses."""
    spot: bool = False
    price: Price | None = None
    """$/h of its offer."""
    max_price: Price | None = None
    """$/h that may be paid at most."""
    disk: Mib = 0
    """Root disk of each machine, in MiB. 0: the backend's default size."""
    reservation: str = ""
    together: bool = False
    """The machines belong to a multi-node run or a cluster, close to each other."""
    way: Way = Way()
    """How they are reached, as it was when this was written."""
    near: str = ""
    """Launches with the same word belong in one zone: the zone of that name, if there is one."""
    avoid: tuple[str, ...] = ()
    """Zones that had no capacity a moment before."""
    handle: str = ""
    """The vendor's own id of what is offered (`Offer.handle`)."""
    image: str = ""
    """The image of each machine, where the type's instances are containers of one; "" where they are not."""
    engine: bool = False
    """Containers are to run on the machines: where they boot an image without an engine, one is installed."""
    deadline: int = 0
    """Unix time at which the backend itself ends the machine, where its type has an own deadline; 0: never."""
    tags: tuple[tuple[str, str], ...] = ()
    lineage: str = ""
    generation: int = 0
    """Generation of the state that wrote it."""
    project: str = ""
    not_after: int = 0
    """Unix time. The request must not be sent later: the token may have expired."""
    inputs: tuple[tuple[str, str], ...] = ()
    """Looked-up facts (image, subnet …), never a secret."""
    digest: str = ""
    """Digest of the full rendering, so that a changed rendering is noticed."""


class Intent(Value, frozen=True, kw_only=True):
    """An open launch. It closes when each of its ids was seen, or is proven never to come."""

    id: str
    request: Request
    opened_at: int
    """Unix time."""
    sent: int = 0
    """How often the effect was begun."""
    hints: tuple[str, ...] = ()
    """External ids that the call returned: a help for look-ups, no proof."""
    refused: str = ""
    """Why some of its machines were refused for good. It is not sent again; the others are only looked for."""
    send_at: int | None = None
    """Unix time for which its last request was scheduled, written before it is sent, where its type schedules
    requests (`launch: once`, `launch_interval`): from then on it may have been sent."""
