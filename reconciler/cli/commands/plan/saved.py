"""Plans saved by `dstack plan --out` for `dstack apply FILE`: they approve, they do not command."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

from reconciler.cli.exits import Fail
from reconciler.state.requests import WishRefused
from schemas.base import Price, Value, is_price
from schemas.plan import Launch, Plan
from schemas.state import State, UsedPlan
from schemas.strict_json import decode_strictly

VERSION = 1
MOST_USED = 100
"""Plans that are remembered as used."""
MAX_BYTES = 256 * 1024 * 1024


class SavedPlan(Value, frozen=True, kw_only=True):
    """`digest` is of the documents that the plan was made from."""

    dstack_plan: int
    digest: str
    plan: Plan


def save_plan(path: Path, plan: Plan, *, digest: str) -> None:
    """Written whole or not at all, readable by its owner alone; what is there and no plan is left alone."""
    if not path.name or (path.exists() and not _is_plan(path)):
        raise Fail(f"--out {path}: is there and is no plan: it is not overwritten; name another file")
    data = msgspec.json.format(msgspec.json.encode(SavedPlan(dstack_plan=VERSION, digest=digest, plan=plan)), indent=1)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data + b"\n")
        temporary.replace(path)
    except OSError as error:
        raise Fail(f"--out {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _is_plan(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(64).lstrip(b"{ \n").startswith(b'"dstack_plan"')


def saved_plan(path: Path, *, digest: str) -> Plan:
    """`Fail` where it is no plan, or one of another configuration than this."""
    saved = read_saved(path)
    if saved.digest != digest:
        raise Fail(f"{path}: made from another configuration than this one; look again: `dstack plan --out {path}`")
    return saved.plan


def uses(path: Path, *, by: str) -> Callable[[State], State]:
    """What marks the plan as used, in memory. `WishRefused` where it was applied before."""
    digest = hashlib.sha256(_bytes(path)).hexdigest()

    def used(state: State) -> State:
        if found := next((one for one in state.used_plans if one.digest == digest), None):
            raise WishRefused(f"{path}: was applied before, by {found.by}; plan again: `dstack plan --out {path}`")
        return replace(state, used_plans=(*state.used_plans, UsedPlan(digest=digest, by=by))[-MOST_USED:])

    return used


def read_saved(path: Path) -> SavedPlan:
    """`Fail` where it is no plan."""
    try:
        saved = decode_strictly(_bytes(path), SavedPlan)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Fail(f"{path}: not a plan saved by this version of `dstack plan --out` ({error})") from error
    if saved.dstack_plan != VERSION:
        raise Fail(f"{path}: a plan of version {saved.dstack_plan}; save it again with `dstack plan --out {path}`")
    if not all(map(is_price, _prices(saved.plan))):
        raise Fail(f"{path}: holds a price that is none; save it again with `dstack plan --out {path}`")
    return saved


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise Fail(f"{path}: no such file; `dstack plan --out {path}` saves a plan") from error
    except OSError as error:
        raise Fail(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise Fail(f"{path}: larger than {MAX_BYTES // 1024**2} MiB: not a plan")
    return data


def _prices(plan: Plan) -> Iterator[Price | None]:
    yield plan.hourly_before
    yield plan.hourly_after
    yield from (action.offer.price for action in plan.actions if isinstance(action, Launch))
    yield from (one.saves for one in plan.waits)
    if plan.cost is not None:
        yield plan.cost.worst
        for one in plan.cost.pools:
            yield from (one.before, one.after, one.worst)
