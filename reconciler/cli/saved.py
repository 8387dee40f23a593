"""A plan saved by `dstack plan --out` for `dstack apply FILE`: it approves, it does not command."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from reconciler.cli.fail import Fail
from schemas.base import Value
from schemas.plan import Plan

VERSION = 1


class Saved(Value, frozen=True, kw_only=True):
    """`digest` is of the documents that the plan was made from."""

    dstack_plan: int
    digest: str
    plan: Plan


def save_plan(path: Path, plan: Plan, *, digest: str) -> None:
    """Written whole or not at all, readable by its owner alone."""
    data = msgspec.json.format(msgspec.json.encode(Saved(dstack_plan=VERSION, digest=digest, plan=plan)), indent=1)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data + b"\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def saved_plan(path: Path, *, digest: str) -> Plan:
    """`Fail` where it is no plan, or one of other documents than these."""
    try:
        saved = msgspec.json.decode(path.read_bytes(), type=Saved)
    except FileNotFoundError as error:
        raise Fail(f"{path}: no such file; `dstack plan --out {path}` saves a plan") from error
    except msgspec.MsgspecError as error:
        raise Fail(f"{path}: not a plan saved by this version of `dstack plan --out` ({error})") from error
    if saved.dstack_plan != VERSION:
        raise Fail(f"{path}: a plan of version {saved.dstack_plan}; save it again with `dstack plan --out {path}`")
    if saved.digest != digest:
        raise Fail(f"{path}: made from other documents than those here; look again: `dstack plan --out {path}`")
    return saved.plan
