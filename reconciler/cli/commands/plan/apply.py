"""`dstack apply`: observe, plan, ask for approval, execute, and wait until it is seen."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler.cli.commands.plan.apply_report import report
from reconciler.cli.commands.plan.approval import Approval, price_flag
from reconciler.cli.commands.plan.plan import check_pool
from reconciler.cli.commands.plan.revision import identified, revision_if_read
from reconciler.cli.commands.plan.saved import saved_plan, uses
from reconciler.cli.commands.plan.waiting import apply_passes, finish_destroying
from reconciler.cli.commands.run.files import packer
from reconciler.cli.project import forget_aliases, ports_of, project_root, site_of, tell
from reconciler.cli.terminal.interrupts import Interrupts
from reconciler.cli.terminal.progress import Progress
from reconciler.cli.terminal.streams import interactive, must_agree, say
from reconciler.cli.terminal.times import seconds
from reconciler.config.load import Documents
from reconciler.engine.refresh_catalog import freshen
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import TickResult
from reconciler.store.base import Store
from reconciler.system.process import now, who
from schemas.plan import Permissions
from schemas.state import VERSION


@dataclass(frozen=True, kw_only=True)
class ApplyFlags:
    file: Path | None = None
    yes: bool = False
    yes_above: str = ""
    detach: bool = False
    deadline: str = ""
    strict: bool = False
    pool: str = ""
    config_force: bool = False
    allow_destroy: tuple[str, ...] = ()
    allow_endpoint: tuple[str, ...] = ()
    allow_mass_destroy: bool = False
    first_run: bool = False
    replace: tuple[str, ...] = ()
    assume_lost: tuple[str, ...] = ()
    retry_hosts: bool = False
    trust_clock: bool = False
    upgrade_state: bool = False
    revive: bool = False
    metrics: Path | None = None
    quiet: bool = False
    """Print nothing where nothing changes."""
    watch: bool = False
    every: str = ""
    """The interval of `watch` as written; "": the default."""
    until_done: bool = False


def apply_once(flags: ApplyFlags, results: list[TickResult]) -> int:
    """Once more where the project was destroyed, and a person at the prompt revives it."""
    documents = identified(project_root(), allow_endpoint=flags.allow_endpoint)
    flags = replace(flags, pool=check_pool(flags.pool, documents.desired))
    site = site_of(documents)
    limit = seconds(flags.deadline, flag="--deadline") if flags.deadline else None
    if flags.upgrade_state:
        _upgrade(ports_of(site).store)
    for given in (flags, replace(flags, revive=True)):
        progress = Progress()
        ports = replace(ports_of(site, asking=progress.asking), bundle=packer(site, yes=flags.yes))
        ports.spawn(lambda: freshen(documents.desired, os.environ, now=now()))  # for the next one: nobody waits for it
        with progress, Interrupts(told=progress.told) as interrupts:
            ask = _ask(given, documents, interrupts=interrupts)
            done = apply_passes(ports, ask, progress=progress, detach=flags.detach, limit=limit)
        tell(ports.store.notes)
        if not done.first.destroyed:
            break
        if flags.yes or flags.file is not None or not interactive():
            finish_destroying(ports)
            break
        must_agree(f"{done.first.refused}\nCreate it again?", yes=False)
    results.append(done.last)
    if done.last.state is not None:
        forget_aliases(done.last.state)
    interrupted = interrupts.count > 0
    return report(done, interrupted=interrupted, strict=flags.strict, detached=flags.detach, quiet=flags.quiet)


def _upgrade(store: Store) -> None:
    from reconciler.store.format_upgrade import upgrade

    kept = upgrade(store)
    say(f"note: the state is of format {VERSION} now; as it was it is kept as {kept}" if kept
        else f"note: there is no state of an older format than {VERSION}: nothing to upgrade")  # fmt: skip


def _ask(flags: ApplyFlags, documents: Documents, *, interrupts: Interrupts) -> TickAsk:
    approval = Approval(
        yes=flags.yes,
        interrupts=interrupts,
        limit=documents.desired.confirm_above,
        yes_above=price_flag(flags.yes_above, flag="--yes-above"),
        declared=frozenset(_pool_names(documents)),
        destroyable=frozenset(flags.allow_destroy),
        saved=saved_plan(flags.file, digest=documents.digest) if flags.file else None,
        quiet=flags.quiet,
    )
    prompted = interactive() and not flags.yes and flags.file is None
    # At a prompt everything is shown and asked about, pools that left by their names.
    destroyable = (*flags.allow_destroy, *(("*",) if prompted else ()))
    found, git_failed = revision_if_read(documents)
    return TickAsk(
        documents=documents,
        revision=found,
        git_failed=git_failed,
        config_force=flags.config_force,
        revive=flags.revive,
        permissions=Permissions(
            destroy_pools=destroyable,
            mass_destroy=flags.allow_mass_destroy,
            first_run=flags.first_run,
            replace=flags.replace,
            assume_lost=flags.assume_lost,
            only_pool=flags.pool,
        ),
        confirm=approval,
        wish=uses(flags.file, by=who()) if flags.file else None,
        prompted=prompted,
        approved_starts=not flags.yes or flags.file is not None,
        retry_hosts=True if flags.retry_hosts else None,
        trust_clock=flags.trust_clock,
        stop=interrupts.asked,
    )


def _pool_names(documents: Documents) -> set[str]:
    pools = documents.desired.pools
    return {pool.name for pool in pools} | {old for pool in pools for old in pool.formerly}
