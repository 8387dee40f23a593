"""What an edit of a pool does to its living instances: every value of the model has a row, and each row is planned."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from reconciler.config.load import load
from reconciler.engine.job_spec import order_of
from reconciler.planner.plan import plan
from reconciler.planner.rules.pool_edits import DERIVED, EFFECTS, Effect
from reconciler.planner.world import World
from reconciler.state.access_modes import with_ways
from reconciler.state.apply_config import apply as applied
from schemas.access import Way
from schemas.documents.pool import PoolForm
from schemas.host import Host
from schemas.plan import Launch, Plan, Terminate
from schemas.pool import DAY, Pool
from schemas.profile import Retry
from schemas.resources import Need, Span, Where
from schemas.state import Revision
from tests.worlds.planning import NOW, changed, intended, world_of
from tests.worlds.world import Site, apply, desired, task, ticks

DOCS = Path(__file__).parents[2] / "docs" / "documents.md"
POOL = Pool(name="gpu", default=True, nodes_min=2)
OFFERS = [
    {"type": "m5", "price": "0.10", "resources": "small"},
    {"type": "m5", "price": "0.05", "resources": "small", "spot": True},
    {"type": "m6", "price": "0.20", "resources": "big", "zone": "us-b"},
    {"type": "m6", "price": "0.30", "resources": "big", "region": "eu"},
    {"type": "m7", "price": "0.40", "resources": "big", "backend": "runpod"},
    {"type": "m8", "price": "0.50", "resources": "pod", "backend": "fake-container"},
]


def edited(pool: Pool, **fields: Any) -> Pool:
    """With the new values; `where.X` is said as `where_X`."""
    inner = {name.removeprefix("where_"): value for name, value in fields.items() if name.startswith("where_")}
    outer = {name: value for name, value in fields.items() if not name.startswith("where_")}
    return replace(pool, where=replace(pool.where, **inner), **outer)


def world(was: Pool, now: Pool, *, instance: dict[str, Any] | None = None, **case: Any) -> World:
    """A pool with one living instance, whose configuration becomes another one with this plan."""
    one = {"name": "gpu-0", "pool": was.name, "price": "0.10", "type": "m5", "idle_duration": 3 * DAY,
           "idle_source": "pool add", "origin": "added", **(instance or {})}  # fmt: skip
    state = {"instances": [one], **case.pop("state", {})}
    made = world_of({"state": state, "offers": OFFERS, "desired": {"runs": case.pop("runs", [])}, **case})
    before = replace(made.desired, pools=(was,))
    return changed(made, desired=replace(before, pools=(now,)), before=before)


def planned(was: Pool, now: Pool, **case: Any) -> Plan:
    return plan(world(was, now, **case))


# ---------------------------------------------------------------- every value has a row


def test_every_value_of_a_pool_has_its_effect() -> None:
    fields = [each.name for each in msgspec.structs.fields(Pool) if each.name != "where"]
    inner = [f"where.{each.name}" for each in msgspec.structs.fields(Where)]
    assert sorted(EFFECTS) + sorted(DERIVED) == sorted({*fields, *inner} - {*DERIVED}) + sorted(DERIVED)
    assert {*EFFECTS} == {*NEXT, *AT_ONCE, *ELSEWHERE}, "each claim is checked below"
    assert {*NEXT} == {field for field, effect in EFFECTS.items() if effect.when == "next launch"}


def test_the_page_says_the_same() -> None:
    section = DOCS.read_text().split("### When an edit takes effect")[1].split("\n### ")[0]
    rows = re.findall(r"^\| (`[^|]*) \| ([^|]*?) \|", section, re.M)
    said = {key: when for keys, when in rows for key in re.findall(r"`(\w+)`", keys)}
    assert said.pop("profile") == "as its values do"
    assert said == {effect.key: effect.when for effect in EFFECTS.values()}
    assert {*said} == {*PoolForm.model_fields} - {"profile"}


# ---------------------------------------------------------------- at the next launch


NEXT: dict[str, tuple[Any, dict[str, Any]]] = {
    "need": (Need(cpu=Span(min=32)), {}),
    "where.backends": (("runpod",), {}),
    "where.regions": (("eu",), {}),
    "where.zones": (("us-b",), {}),
    "where.instance_types": (("m6",), {}),
    "where.spot": ("spot", {}),
    "where.max_price": (Decimal("0.07"), {"where": {"spot": "auto"}}),
    "where.reservation": ("cr-1", {}),
    "placement": ("cluster", {}),
    "blocks": (2, {}),
    "tags": ((("team", "nlp"),), {}),
    "max_lifetime": (DAY, {}),
    "hold": (3600, {}),
    "unattended": (3600, {}),
    "default_image": ("ubuntu", {"where": {"backends": ("fake-container",)}}),
    "self_termination": ("required", {"where": {"backends": ("runpod",)}}),
}  # fmt: skip


@pytest.mark.parametrize("field", NEXT)
def test_living_instances_keep_what_an_edit_is_for_the_next_launch(field: str) -> None:
    value, given = NEXT[field]
    was = replace(POOL, where=replace(POOL.where, **{"spot": "on-demand", **given.get("where", {})}))
    now = edited(was, **{field.replace(".", "_"): value})
    instance = {"resources": "pod", "backend": "fake-container"} if field == "default_image" else {}
    before, after = planned(was, was, instance=instance), world(was, now, instance=instance)
    made = plan(after)
    effect = EFFECTS[field]
    assert [note for note in made.notes if note.startswith("pool gpu: ")] == [
        f"pool gpu: {effect.key} changed: gpu-0 keeps its {effect.keeps} until it ends"
    ]
    assert not [action for action in made.actions if isinstance(action, Terminate)]
    assert intended(after, made).instances[0] == after.state.instances[0]
    assert launch_of(before) != launch_of(made), "what is launched from then on has the new value"


def launch_of(made: Plan) -> Launch | None:
    return next((replace(one, why="") for one in made.actions if isinstance(one, Launch)), None)


def test_an_instance_that_fits_the_edit_needs_no_line() -> None:
    now = edited(POOL, where_instance_types=("m5", "m6"), where_max_price=Decimal(1), where_regions=("us", "eu"))
    assert planned(POOL, now).notes == ()


def test_several_are_named_once() -> None:
    two = {"instances": [{"name": f"gpu-{index}", "pool": "gpu", "type": "m5"} for index in (1, 2)]}
    made = planned(POOL, edited(POOL, where_instance_types=("m6",)), state=two)
    assert made.notes == ("pool gpu: instance_types changed: gpu-1, gpu-2 keep their type until they end",)


def test_nothing_is_said_where_nothing_was_edited_nor_in_the_scope_of_another() -> None:
    assert planned(POOL, POOL).notes == ()
    now = edited(POOL, where_instance_types=("m6",))
    assert planned(POOL, now, permissions={"scope": ["x"]}).notes == ()
    assert planned(POOL, now, permissions={"only_pool": "other"}).notes == ()


# ---------------------------------------------------------------- at once, and when idle

WAITING = {"name": "train", "spec": {"commands": ["x"]}}
HOST = Host(name="box", hostname="box", host_key="ssh-ed25519 AAAA")
# field -> (the pool before, the new value, what the world has)
AT_ONCE: dict[str, tuple[Pool, Any, dict[str, Any]]] = {
    "name": (POOL, "new", {}),
    "formerly": (replace(POOL, name="new"), ("gpu",), {"instance": {"pool": "gpu"}}),
    "default": (replace(POOL, default=False), True, {}),
    "nodes_min": (POOL, 3, {}),
    "nodes_target": (POOL, 3, {}),
    "nodes_max": (replace(POOL, nodes_min=0), 0, {"instance": {"origin": "declared"}}),
    "idle_duration": (replace(POOL, nodes_min=0), 60, {"instance": {"ready_at": "-1h"}}),
    "unreachable_grace": (POOL, 10, {
        "instance": {"unreachable_since": "-1m"}, "state": {"runs": [{"name": "train", "status": "running"}],
        "attempts": [{"run": "train", "jobs": [{"instance": "gpu-0"}]}]},
    }),
    "max_hourly": (POOL, Decimal("0.12"), {}),
    "paused": (POOL, True, {}),
    "prevent_destroy": (POOL, True, {}),
    "allow_foreign": (POOL, True, {"instance": {"foreign": "python (1)"}, "state": {"runs": [WAITING]}}),
    "isolation": (POOL, "container", {"state": {"runs": [WAITING]}}),
    "hosts": (replace(POOL, nodes_min=0), (HOST,), {}),
}  # fmt: skip


@pytest.mark.parametrize("field", [field for field in AT_ONCE if field not in ("name", "default", "hosts")])
def test_an_edit_that_takes_effect_at_once_changes_the_plan_at_once(field: str) -> None:
    was, value, given = AT_ONCE[field]
    now = edited(was, **{field: value})
    if field == "idle_duration":
        now = replace(now, sources=(("idle_duration", "pool"),))
    before, after = planned(was, was, **given), planned(was, now, **given)
    shown = [(made.actions, made.unmet) for made in (before, after)]
    assert shown[0] != shown[1]
    assert not any("until it ends" in note for note in after.notes)


def test_a_new_name_and_a_new_default_are_of_the_next_plan() -> None:
    made = planned(POOL, replace(POOL, name="new", formerly=("gpu",)))
    assert [action.name for action in made.actions if getattr(action, "changes", {}).get("pool") == "new"] == ["gpu-0"]
    other = replace(POOL, name="other", nodes_min=0)
    waiting = world_of({"state": {"runs": [{"name": "train", "spec": {"pool": ""}}]}, "offers": OFFERS})
    for chosen in (POOL, other):
        pools = tuple(replace(pool, nodes_min=0, default=pool.name == chosen.name) for pool in (POOL, other))
        launch = launch_of(plan(changed(waiting, desired=replace(waiting.desired, pools=pools))))
        assert launch is not None
        assert launch.pool == chosen.name


def test_servers_are_attached_at_once() -> None:
    was, hosts, _ = AT_ONCE["hosts"]
    before, after = planned(was, was), planned(was, replace(was, hosts=hosts))
    assert "box" not in str((before.actions, before.unmet))
    assert "box" in str((after.actions, after.unmet))


# Values that no plan decides by: how they reach what is there.
ELSEWHERE = ("retry", "connect", "disk_floor")


def test_retry_is_of_the_runs_that_take_it_from_their_pool(tmp_path: Path) -> None:
    folder = tmp_path / ".dstack"
    folder.mkdir()
    for retry, found in ((False, Retry()), (True, Retry(no_capacity=True, interruption=True, error=True))):
        (folder / "a.yml").write_text(
            f"project: {{id: abcdefgh1}}\npools: [{{name: gpu, retry: {str(retry).lower()}}}]\n"
            "runs: [{type: task, name: train, pool_name: gpu, commands: [x]}]\n"
        )
        (run,) = load(tmp_path, home=tmp_path / "home").desired.runs
        assert (run.retry.no_capacity, run.retry.error) == (found.no_capacity, found.error)


def test_connect_reaches_living_instances() -> None:
    jump = replace(POOL, connect=Way(mode="program", name="ssm"))
    made = world(POOL, POOL)
    state = applied(
        made.state, desired=replace(made.desired, pools=(jump,)), revision=Revision(digest="d"), by="a", now=NOW
    )
    assert [one.way.name for one in with_ways(state).instances] == ["ssm"]


def test_the_disk_floor_is_of_the_next_run(tmp_path: Path) -> None:
    site = Site(scratch=tmp_path)
    pool = Pool(name="default-pool", default=True)
    for floor in (1024, 2048):
        apply(site, desired(pools=[replace(pool, disk_floor=floor)], runs=[task("train")]))
        ticks(site, 3)
        (run,), (attempt,) = site.state.runs, site.state.attempts
        known = {one.id: one for one in site.state.instances}
        order = order_of(site.ports(), site.state, run=run, attempt=attempt, job=attempt.jobs[0], instances=known)
        assert order.disk_floor == floor


# ---------------------------------------------------------------- the idle duration


def idle_of(now: Pool, was: Pool = POOL, **instance: Any) -> tuple[int | None, str]:
    made = world(was, now, instance={"ready_at": "-1s", **instance})
    (one,) = (one for one in intended(made, plan(made)).instances if one.name == "gpu-0")
    return one.idle_duration, one.idle_source


SAYS = replace(POOL, idle_duration=60, sources=(("idle_duration", "pool"),))
LATER = replace(POOL, idle_duration=7200, sources=(("idle_duration", "pool"),))
OFF = replace(POOL, idle_duration=None, sources=(("idle_duration", "pool"),))
BY_PROFILE = replace(POOL, idle_duration=900, sources=(("idle_duration", "profile slow"),))


@pytest.mark.parametrize("source", ["pool add", "default", "pool", "pool gpu", "the pool, after a rebuild"])
def test_an_edited_idle_duration_reaches_what_had_it_of_its_pool(source: str) -> None:
    assert idle_of(SAYS, idle_source=source)[0] == 60
    assert idle_of(OFF, idle_source=source)[0] is None
    assert idle_of(LATER, was=SAYS, idle_source=source)[0] == 7200
    assert idle_of(BY_PROFILE, idle_source=source) == (900, "profile slow")
    assert idle_of(SAYS, was=BY_PROFILE, idle_source="profile slow")[0] == 60


@pytest.mark.parametrize("source", ["--idle-duration", "run", "profile of-the-run", "dont-destroy", "flag"])
def test_it_reaches_nothing_that_has_its_own(source: str) -> None:
    assert idle_of(SAYS, idle_source=source) == (3 * DAY, source)


def test_an_idle_duration_that_is_taken_out_gives_the_default_back() -> None:
    assert idle_of(POOL, was=SAYS, idle_source="pool", idle_duration=60) == (3 * DAY, "pool add")
    run = idle_of(POOL, was=SAYS, idle_source="pool gpu", idle_duration=60, origin="run")
    assert run == (300, "default")


def test_the_plan_shows_what_it_reaches_and_ends() -> None:
    made = planned(replace(POOL, nodes_min=0), replace(SAYS, nodes_min=0), instance={"ready_at": "-1h"})
    assert made.notes == ("pool gpu: idle_duration 3d → 1m: gpu-0, from now on",)
    assert [action.why for action in made.actions if isinstance(action, Terminate)] == ["idle for 1m (pool)"]


def test_each_effect_says_what_is_kept_or_nothing() -> None:
    assert [field for field, effect in EFFECTS.items() if bool(effect.keeps) != (effect.when == "next launch")] == []
    assert all(isinstance(effect, Effect) for effect in EFFECTS.values())
