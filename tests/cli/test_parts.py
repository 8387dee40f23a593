"""Parts of the command line on their own: following, offers, saved plans, choices of names. No process, no clock."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from reconciler.cli.commands.offers.flags import retry_flag, spot_flag
from reconciler.cli.commands.offers.rows import OfferQuery, browsed, offer_rows
from reconciler.cli.commands.plan.approval import price_flag
from reconciler.cli.commands.plan.saved import save_plan, saved_plan
from reconciler.cli.commands.run.find import find_attempt, find_job, find_run
from reconciler.cli.exits import Fail
from reconciler.cli.fast_path import quick
from reconciler.hosts.follow_log import Log, follow
from schemas.base import Price
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.plan import Plan
from schemas.pool import Pool
from schemas.resources import Gpu, GpuNeed, Need, Resources, Span, Where
from schemas.run import Attempt, Job, Run, RunSpec
from schemas.state import VERSION, State

BOX = Resources(cpus=4, memory=8192)
GPU_BOX = Resources(cpus=8, memory=65536, gpu=Gpu(name="a100", memory=81920))


# ---------------------------------------------------------------- following


class Written:
    """A log that grows at each look; `ended` once all of it is there."""

    def __init__(self, *pieces: bytes, late: bytes = b"") -> None:
        self._pieces = list(pieces)
        self._late = late
        self._there = b""
        self.shown = b""
        self.pauses = 0

    def read(self, offset: int) -> bytes:
        return self._there[offset:]

    def ended(self) -> bool:
        if self._pieces:
            return False
        self._there += self._late
        self._late = b""
        return True

    def sleep(self, seconds: float) -> None:
        self.pauses += 1
        if self._pieces:
            self._there += self._pieces.pop(0)

    def write(self, data: bytes) -> None:
        self.shown += data

    def follow(self, offset: int = 0) -> int:
        return follow(Log(read=self.read, ended=self.ended), write=self.write, sleep=self.sleep, offset=offset)


def test_every_byte_is_shown_once_whatever_it_is() -> None:
    log = Written(b"one\n", b"", b"\x00\xff\n", b"no end of line")
    assert log.follow() == len(log.shown)
    assert log.shown == b"one\n\x00\xff\nno end of line"


def test_what_came_with_the_end_is_shown_too() -> None:
    log = Written(b"first\n", late=b"last words\n")
    log.follow()
    assert log.shown == b"first\nlast words\n"


def test_following_may_begin_anywhere_and_be_stopped() -> None:
    log = Written(b"0123456789")
    log.follow(offset=4)
    assert log.shown == b"456789"
    endless = Log(read=lambda offset: b"x", ended=lambda: False)
    looks = iter([False, False, True])
    assert follow(endless, write=lambda data: None, sleep=lambda s: None, stop=lambda: next(looks)) == 2


# ---------------------------------------------------------------- offers


def an_instance(name: str, **values: object) -> Instance:
    known: dict[str, object] = {
        "id": name, "name": name, "pool": "p", "backend": "aws", "place": "aws/r", "region": "r", "phase": "ready",
        "instance_type": "m", "resources": BOX, "price": Price(1), "ready_at": 1,
    }  # fmt: skip
    return Instance(**{**known, **values})  # type: ignore[arg-type]


def an_offer(price: str | None, **values: object) -> Offer:
    known: dict[str, object] = {
        "backend": "aws", "region": "r", "instance_type": "m", "resources": BOX,
        "price": None if price is None else Price(price), "availability": "available",
    }  # fmt: skip
    return Offer(**{**known, **values})  # type: ignore[arg-type]


def test_idle_comes_first_then_the_cheapest_then_what_is_not_to_be_had() -> None:
    busy = Attempt(id="a", run="r", number=1, jobs=(Job(id="j", instance="busy", status="running"),))
    state = State(
        version=VERSION,
        project="p" * 8,
        lineage="l",
        instances=(
            an_instance("busy"),
            an_instance("idle"),
            an_instance("other", pool="q"),
            an_instance("lost", unreachable_since=5),
            an_instance("leaving", draining="max lifetime"),
            an_instance("gone", phase="terminated"),
        ),
        attempts=(busy,),
    )
    offers = [an_offer("3"), an_offer("2"), an_offer("1", availability="no-quota"), an_offer(None)]
    rows = offer_rows(OfferQuery(need=Need(), where=Where(), pool=Pool(name="p")), state=state, offers=offers)
    assert [(row.availability, row.price) for row in rows] == [
        ("idle", 1), ("", 2), ("", 3), ("", None), ("no quota", 1), ("busy", 1),
    ]  # fmt: skip
    one = OfferQuery(need=Need(), where=Where(), pool=Pool(name="p"), new=False, instance="busy")
    assert [row.instance for row in offer_rows(one, state=state, offers=offers)] == ["m (busy)"]


def test_no_offers_always_have_a_reason() -> None:
    need = Need(gpu=GpuNeed(count=Span(min=2, max=2)))
    offers = [an_offer("1"), an_offer("2"), an_offer("3", resources=GPU_BOX)]
    asked = OfferQuery(need=need, where=Where(), pool=Pool(name="p"))
    state = State(version=VERSION, project="p", lineage="l")
    assert offer_rows(asked, state=state, offers=offers) == []
    said = browsed(asked, state=state, offers=offers).funnel
    assert said == "3 offers → 0 with gpu 2, the cheapest left out: m $3.00"


# ---------------------------------------------------------------- flags and names


def test_flags_that_exclude_one_another() -> None:
    assert spot_flag(spot=False, on_demand=False, auto=False, policy=None) is None
    assert spot_flag(spot=True, on_demand=False, auto=False, policy="spot") == "spot"
    assert retry_flag(retry=False, no_retry=False) is None
    with pytest.raises(Fail, match="give one of"):
        spot_flag(spot=True, on_demand=False, auto=True, policy=None)
    with pytest.raises(Fail, match="must be spot, on-demand or auto"):
        spot_flag(spot=False, on_demand=False, auto=False, policy="cheap")
    with pytest.raises(Fail, match="--retry and --no-retry"):
        retry_flag(retry=True, no_retry=True)


def test_prices_are_read_as_people_write_them() -> None:
    assert price_flag("", flag="--x") is None
    assert price_flag("$1.20/h", flag="--x") == Decimal("1.20")
    for wrong in ("-1", "nan", "inf", "1,20"):
        with pytest.raises(Fail, match=r"--x .*: not a price"):
            price_flag(wrong, flag="--x")


def test_the_newest_run_of_a_name_is_meant() -> None:
    spec = RunSpec(name="train")
    runs = (Run(id="r1", spec=spec, submitted_at=1), Run(id="r2", spec=spec, submitted_at=2))
    attempts = tuple(
        Attempt(id=f"r2-0-{n}", run="r2", number=n, jobs=(Job(id=f"r2-0-{n}-0", instance="i"),)) for n in (1, 2)
    )
    state = State(version=VERSION, project="p", lineage="l", runs=runs, attempts=attempts)
    assert find_run(state, "train").id == "r2"
    assert find_run(state, "r1").id == "r1"
    newest = find_attempt(state, runs[1], replica=0, number=0)
    assert newest is not None
    assert newest.number == 2
    assert find_attempt(state, runs[0], replica=0, number=0) is None
    with pytest.raises(Fail, match="no attempt 7; there are 1, 2"):
        find_attempt(state, runs[1], replica=0, number=7)
    with pytest.raises(Fail, match=r"no job 3; it has nodes 0\.\.0"):
        find_job(newest, rank=3, run=runs[1])
    with pytest.raises(Fail, match=r"no run trian; did you mean train\?"):
        find_run(state, "trian")


def test_only_switches_are_understood_without_the_parser() -> None:
    for line in ([], ["plan", "--out", "x"], ["plan", "--help"], ["ps", "-av"], ["pool", "ps", "--pool"], ["pool"]):
        assert quick(line) is None


# ---------------------------------------------------------------- saved plans


def test_a_saved_plan_is_private_and_read_back_equal(tmp_path: Path) -> None:
    path, plan = tmp_path / "plan.json", Plan(version=1, project="p", generation=3, hourly_after=Price("1.20"))
    save_plan(path, plan, digest="d1")
    assert path.stat().st_mode & 0o777 == 0o600
    assert saved_plan(path, digest="d1") == plan
    assert [one.name for one in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "not a plan saved by this version"),
        ("[", "not a plan"),
        ('{"dstack_plan":1,"x":2}', "not a plan"),
        ('{"dstack_plan":9,"digest":"d1","plan":{"version":1,"project":"p","generation":1}}', "a plan of version 9"),
        (
            '{"dstack_plan":1,"digest":"d2","plan":{"version":1,"project":"p","generation":1}}',
            "from another configuration",
        ),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(Fail, match=said):
        saved_plan(path, digest="d1")
