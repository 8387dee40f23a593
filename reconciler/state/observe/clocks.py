"""Compare our clock with every clock that an apply has heard of, and say which time is stored. Pure.

The date of a backend or of the state's store outvotes everything else. Where none tells the time, what this machine
knows of its own last apply decides: its boot id and its uptime, which no clock moves. The clock of a host, which jobs
may set, says something of its own place alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from schemas.base import Seconds, Value
from schemas.instance import HostReport, Listing
from schemas.state import Place, State, Tick

SKEW: Seconds = 60
"""Clocks that are no further apart than this agree."""
FOLLOWED: Seconds = 86400
"""One bought host alone, whose clock is ahead of ours by more than this, is wrong itself."""
LAST_APPLY = "the last apply"
"""Whose clock ours is said to be off from, where only the state contradicts it."""


class BootTime(Value, frozen=True, kw_only=True):
    """Which start of this machine this is, and how long ago it was. Without a `boot_id` nothing is known."""

    boot_id: str = ""
    uptime: Seconds = 0


class ClockReading(Value, frozen=True, kw_only=True):
    """How far our clock can be trusted in this apply."""

    off: Seconds = 0
    """Seconds by which our clock is ahead of the time that is stored; 0 where nothing better is known."""
    whose: str = ""
    """Which clock ours disagrees with; "": none that counts for all places."""
    places: Mapping[str, Seconds] = {}
    """Place → seconds by which our clock is ahead of the one there. It counts for that place alone."""
    shifts: Mapping[str, Seconds] = {}
    """Place → seconds that are taken off our clock for what is observed there, besides `off`."""
    stands_still: bool = False
    """Our clock is behind the last apply, and nothing tells by how much: the time of that apply is stored."""
    resumed: bool = False
    """Ours is right, but the last apply of this boot counted another time: what it dates may be older than it was."""
    proven: bool = False
    """A clock that nothing of ours moves agrees with ours, so what the state dates later is wrong."""

    @property
    def apart(self) -> bool:
        """Whether two clocks disagree: nothing is deleted then."""
        return bool(self.whose or self.places)

    @property
    def why(self) -> str:
        """`our clock is 300 s ahead of that of aws/eu-west-1`; "" where none disagrees."""
        if self.whose:
            return words_of(self.whose, self.off)
        return "; ".join(words_of(name, off) for name, off in self.places.items())


AGREED = ClockReading()


def words_of(whose: str, off: Seconds) -> str:
    """By how much our clock is off from that of `whose`, for people."""
    return f"our clock is {abs(off)} s {'ahead of' if off > 0 else 'behind'} that of {whose}"


def read_clocks(
    state: State,
    *,
    listings: Sequence[Listing] = (),
    reports: Sequence[HostReport] = (),
    now: int,
    boot: BootTime = BootTime(),  # noqa: B008 - frozen
    date: tuple[str, Seconds] | None = None,
) -> ClockReading:
    """What is known of our clock, which says `now`.

    Args:
        boot: of this machine, at `now`. What the state's last write says of the same boot is compared with it.
        date: whose store tells the time, and by how many seconds ours is ahead of that; None: not asked, or silent.
    """
    dates = {one.place: one.at - one.clock for one in listings if one.clock is not None and not one.error}
    told = [*dates.items(), *([date] if date is not None else [])]
    nearest = min(told, key=lambda each: abs(each[1]), default=None)
    if nearest is not None and _apart(nearest[1]):
        return ClockReading(off=nearest[1], whose=nearest[0])
    jumped = since_last_apply(state.ticks, now=now, boot=boot)
    jumped = None if jumped is None else jumped if _apart(jumped) else 0
    if nearest is not None:
        apart = {name: off for name, off in dates.items() if _apart(off)}
        return ClockReading(places=apart, proven=True, resumed=bool(jumped))
    hosts = _hosts(state, reports)
    proven = any(_independent(one, boot) and not _apart(one.off) for one in hosts)
    if jumped and not proven:
        return ClockReading(off=jumped, whose=LAST_APPLY)
    if any(not _apart(one.off) for one in hosts):
        return ClockReading(proven=proven, resumed=bool(jumped))
    behind = _behind(state.ticks, now=now) if jumped is None else 0
    return _of_hosts(state.places, hosts, behind=behind)


def since_last_apply(ticks: Sequence[Tick], *, now: int, boot: BootTime) -> Seconds | None:
    """By how many seconds our clock is ahead of the time that the newest apply of this boot leads to; None: no such."""
    mine = [one for one in ticks if boot.boot_id and one.boot_id == boot.boot_id and one.uptime is not None]
    newest = max(mine, key=lambda one: one.uptime or 0, default=None)
    if newest is None or (passed := boot.uptime - (newest.uptime or 0)) < 0:
        return None
    return now - (newest.at + passed)


def _behind(ticks: Sequence[Tick], *, now: int) -> Seconds:
    """By how many seconds our clock is behind a time that has passed, since an apply wrote it; 0 or less."""
    off = now - max((one.at for one in ticks), default=now)
    return off if off < -SKEW else 0


class _HostClock(NamedTuple):
    place: str
    off: Seconds
    """Seconds by which our clock is ahead of the host's."""
    boot_id: str


def _apart(off: Seconds) -> bool:
    return abs(off) > SKEW


def _independent(host: _HostClock, boot: BootTime) -> bool:
    """It is another machine than this one, whose clock is no second one."""
    return host.boot_id != boot.boot_id


def _hosts(state: State, reports: Sequence[HostReport]) -> list[_HostClock]:
    """The clocks of hosts, without those of this machine's own instances."""
    mine = {place.name for place in state.places if place.config.traits.kind == "machine"}
    there = {instance.id: instance.place for instance in state.instances if instance.place not in mine}
    return [
        _HostClock(there[one.instance], one.at - one.clock, one.boot_id)
        for one in reports
        if one.clock is not None and not one.error and one.instance in there
    ]


def _of_hosts(places: Sequence[Place], hosts: Sequence[_HostClock], *, behind: Seconds) -> ClockReading:
    """No host agrees with us: each place has its own time, that of the host there that agrees most with us.

    What is stored stays in our time where one host alone says so, or its place is that host: it may be wrong itself.
    A bought one that is ahead of us by no more than a day is followed: an instance that seems to be idle for too short
    a time stays.
    `behind`: our clock is behind the last apply's by as much, at least. It stands still until that has passed.
    """
    found: dict[str, list[Seconds]] = {}
    for one in hosts:
        found.setdefault(one.place, []).append(one.off)
    servers = {place.name for place in places if place.config.is_server}
    nearest = {name: min(each, key=abs) for name, each in found.items()}
    followed = {name: off for name, off in nearest.items() if name not in servers}
    if behind:
        later = {name: off - behind for name, off in followed.items() if -FOLLOWED <= off < behind}
        return ClockReading(off=behind, whose=LAST_APPLY, stands_still=True, shifts=later)
    told = {name: off for name, off in followed.items() if len(found[name]) > 1 or -FOLLOWED <= off < 0}
    return ClockReading(places=nearest, shifts=told)
