"""Terminate instances that ended, expired, failed or were removed. Busy ones drain first. Pure.

An ordered table of rules: the first that matches decides. A rule of ours about facts
(`inferred`: orphan, time-out, unreachable, health) says nothing about a place that is unknown and
ends nothing that was last seen busy; a rule about the documents needs the permission to end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from reconciler.planner.draft import Draft, pool_subject, price_of, without
from reconciler.planner.placement.limits import rules_now
from reconciler.planner.rules.detach_hosts import GONE, departures
from reconciler.planner.rules.end_unanswering import beyond_reach
from reconciler.planner.rules.never_ready import launched_in_scope, never_ready
from reconciler.planner.rules.remove_leftovers import remove_leftovers
from reconciler.state.autoscale_rules import Rules, covers, rule_words
from reconciler.state.drains import INSTANCE_DRAINED, POOL_DRAINED, begun, drain_words, stop_at
from reconciler.state.status import LOOKS_ENOUGH, unheard
from reconciler.text.durations import words
from reconciler.text.format import counted
from schemas.instance import Instance
from schemas.plan import Terminate

MINUTE = 60
ORPHAN_GRACE = 10 * MINUTE
UNREACHABLE_GRACE = 20 * MINUTE  # or its pool's, where that is longer

# Drains that these rules wrote themselves are lifted when their rule holds no more.
OURS = ("was removed from", "max lifetime", "nodes lowered", POOL_DRAINED, INSTANCE_DRAINED, "autoscale")


@dataclass(frozen=True, kw_only=True)
class Leave:
    """Why an instance goes. `until`: a busy one is stopped then. `guarded`: `prevent_destroy` keeps it.

    `undeclared`: it is for a declared server too, which is let go then; every other reason lets it rest.
    """

    why: str
    inferred: bool = False
    until: int | None = None
    guarded: bool = True
    undeclared: bool = False


def retire(draft: Draft) -> None:
    """Terminate what must go and is free, drain what is busy, and note who may not be used."""
    _rename(draft)
    _guard(draft)
    kept: dict[tuple[str, str], int] = {}
    for instance in list(draft.living.values()):
        if instance.phase == "terminating":
            draft.leaving[instance.id] = instance.reason
        elif draft.everything or _covered(draft, instance):
            _judge(draft, instance, kept=kept)
        elif instance.draining:
            draft.leaving[instance.id] = instance.draining
    remove_leftovers(draft)
    if draft.rules_documents and not draft.may.destroy_all:
        for one, until in departures(draft):
            _leave(draft, one, leave=Leave(why=GONE, until=until, undeclared=True), kept=kept)
        _over_nodes(draft, kept=kept)
    if not draft.may.destroy_all:
        _over_caps(draft, kept=kept)
    for (pool, why), count in kept.items():
        draft.cannot(f"pool {pool}", f"{count} kept by prevent_destroy ({why})")
    _lift_drains(draft)


def _covered(draft: Draft, instance: Instance) -> bool:
    """An orphan without a pool is in no pool, while a run without one is in the default pool.

    What was launched for a request is within the scope of that request, as is what was launched since for a run.
    """
    if launched_in_scope(draft, instance):
        return True
    return draft.covers(id=instance.id, pool=instance.pool) and bool(instance.pool or not draft.may.only_pool)


def _lift_drains(draft: Draft) -> None:
    """A drain that one of these rules wrote ends when no rule asks for it any more."""
    for instance in list(draft.living.values()):
        if not instance.draining or instance.id in draft.leaving or not draft.rules_documents:
            continue
        if draft.covers(id=instance.id, pool=instance.pool):
            draft.update_instance(instance, why="wanted again", draining="", drain_until=None)


def _rename(draft: Draft) -> None:
    if not draft.rules_documents or not draft.renamed:
        return
    for instance in list(draft.living.values()):
        new = draft.renamed.get(instance.pool)
        if new and draft.covers(id=instance.id, pool=instance.pool):
            draft.update_instance(instance, why=f"pool {instance.pool} is now {new}", pool=new)


def _guard(draft: Draft) -> None:
    """Remember `prevent_destroy` on each instance, so that it holds once its pool is not configured any more."""
    if not draft.rules_documents:
        return
    guards = any(pool.prevent_destroy for pool in draft.pools.values())
    different: dict[str, list[Instance]] = {}
    for one in draft.living.values():
        if not guards and not one.prevent_destroy:
            continue
        pool = draft.pools.get(draft.pool_of(one))
        if pool is not None and one.prevent_destroy != pool.prevent_destroy:
            different.setdefault(pool.name, []).append(one)
    for pool in draft.pools.values():
        for one in different.get(pool.name, ()):
            if draft.covers(id=one.id, pool=pool.name):
                why = f"prevent_destroy is {'on' if pool.prevent_destroy else 'off'} in pool {pool.name}"
                draft.update_instance(one, why=why, quiet=True, prevent_destroy=pool.prevent_destroy)


def _judge(draft: Draft, instance: Instance, *, kept: dict[tuple[str, str], int]) -> None:
    for rule in (_destroyed,) if unheard(instance) else _RULES:
        if leave := rule(draft, instance):
            _leave(draft, instance, leave=leave, kept=kept)
            return


def _leave(draft: Draft, instance: Instance, *, leave: Leave, kept: dict[tuple[str, str], int]) -> None:
    if leave.guarded and instance.prevent_destroy:
        kept[instance.pool, leave.why] = kept.get((instance.pool, leave.why), 0) + 1
        return
    draft.leaving[instance.id] = leave.why
    if instance.host is not None and not leave.undeclared:
        if draft.jobs.get(instance.id):
            _drain(draft, instance, leave=leave)
        return
    if draft.jobs.get(instance.id) and not beyond_reach(draft, instance):
        if not leave.inferred:
            _drain(draft, instance, leave=leave)
        return
    who = {"instance": instance.id, "name": instance.name, "pool": instance.pool}
    draft.actions.append(Terminate(**who, why=leave.why, inferred=leave.inferred))


def _drain(draft: Draft, instance: Instance, *, leave: Leave) -> None:
    """It is given no more work. A declared server stays: only its declaration removes it."""
    if (instance.draining, instance.drain_until) != (leave.why, leave.until):
        draft.update_instance(instance, why=f"drains: {leave.why}", draining=leave.why, drain_until=leave.until)


# ---------------------------------------------------------------- the rules, first match wins


def _destroyed(draft: Draft, instance: Instance) -> Leave | None:
    return Leave(why="the project is destroyed", undeclared=True) if draft.may.destroy_all else None


def _orphaned(draft: Draft, instance: Instance) -> Leave | None:
    if not instance.orphan or instance.place in draft.unknown:
        return None
    since = max(instance.created_at, instance.seen_at or 0)
    if draft.now < since + ORPHAN_GRACE:
        return None
    return Leave(why=f"nobody owns it: {instance.orphan}", inferred=True, guarded=False, undeclared=True)


def _pool_left(draft: Draft, instance: Instance) -> Leave | None:
    if not instance.pool or instance.pool in draft.pools or instance.orphan or not draft.rules_documents:
        return None
    if draft.pool_name(instance.pool) in draft.pools:
        return None
    if not pool_may_go(draft, instance):
        return None
    return Leave(why=f"pool {instance.pool} was removed from the configuration", undeclared=True)


def pool_may_go(draft: Draft, instance: Instance) -> bool:
    """By this apply's permission, or by an earlier one's, whose drain goes on."""
    return draft.named(instance.pool) or instance.draining == f"pool {instance.pool} was removed from the configuration"


def _drained(draft: Draft, instance: Instance) -> Leave | None:
    for override in draft.drains:
        subject = pool_subject(override)
        if subject and draft.renamed.get(subject, subject) == instance.pool:
            return Leave(why=drain_words(override, what="pool"), until=stop_at(override))
    own = draft.own_drains.get(instance.id) if draft.own_drains else None
    if own is not None and begun(own, now=draft.now):
        return Leave(why=drain_words(own, what="instance"), until=stop_at(own))
    if instance.draining and not any(word in instance.draining for word in OURS):
        return Leave(why=instance.draining, until=instance.drain_until)
    return None


def _too_old(draft: Draft, instance: Instance) -> Leave | None:
    if instance.max_lifetime is None or instance.host is not None:
        return None
    if draft.now < instance.created_at + instance.max_lifetime:
        return None
    return Leave(why=f"max lifetime {words(instance.max_lifetime)} is over")


def _ill(draft: Draft, instance: Instance) -> Leave | None:
    if not instance.quarantined or not draft.is_cloud(instance.backend) or instance.place in draft.unknown:
        return None
    return Leave(why=f"failed its health check: {instance.quarantined}", inferred=True)


def _never_ready(draft: Draft, instance: Instance) -> Leave | None:
    why = never_ready(draft, instance)
    return Leave(why=why, inferred=True) if why else None


def _unreachable(draft: Draft, instance: Instance) -> Leave | None:
    since = instance.unreachable_since
    if since is None or instance.failed_looks < LOOKS_ENOUGH:
        return None
    if instance.place in draft.unknown or not draft.is_cloud(instance.backend):
        return None
    if instance.phase == "ready" and instance.ready_at is None:  # silent since a rebuild: it may have been busy
        return None
    limit = max(UNREACHABLE_GRACE, draft.grace(instance))
    if draft.now < since + limit:
        return None
    why = instance.unreachable_why or "no answer"
    return Leave(why=f"unreachable for {words(limit)} and idle: {why}", inferred=True)


_RULES: tuple[Callable[[Draft, Instance], Leave | None], ...] = (
    _destroyed,
    _orphaned,
    _pool_left,
    _drained,
    _too_old,
    _ill,
    _never_ready,
    _unreachable,
)


# ---------------------------------------------------------------- rules about many


def _over_nodes(draft: Draft, *, kept: dict[tuple[str, str], int]) -> None:
    """`nodes` was lowered: declared ones go, free ones first; a run's and an added one stay."""
    for pool in draft.pools.values():
        if pool.nodes_max is None or pool.hosts or not draft.covers(id="", pool=pool.name):
            continue
        # What is unknown may be gone already: it is neither ended nor a reason to end another.
        staying = [one for one in _staying(draft, pool.name) if one.place not in draft.unknown]
        excess = len(staying) - pool.nodes_max
        if excess <= 0:
            continue
        chosen = [each for each in staying if each.origin == "declared" and not each.reserved_for]
        if not draft.may_end(pool.name):
            # An earlier apply's drain goes on.
            chosen = [each for each in chosen if each.draining.startswith("nodes lowered")]
        if not draft.may_end(pool.name) and excess > len(chosen):
            why = f"{excess} more than its {counted(pool.nodes_max, 'node')}, but this apply may not end them"
            draft.cannot(f"pool {pool.name}", f"{why}: {without(pool.name)}")
        chosen.sort(key=lambda each: _worth(draft, each))
        for instance in chosen[:excess]:
            _leave(draft, instance, leave=Leave(why=f"nodes lowered to {pool.nodes_max}"), kept=kept)


def _staying(draft: Draft, pool: str) -> Iterator[Instance]:
    """What nobody owns is no node of the pool: it goes by its own rule, and nothing of ours in its place."""
    return (draft.living[id] for id in draft.members[pool] if id not in draft.leaving and not draft.living[id].orphan)


def _over_caps(draft: Draft, *, kept: dict[tuple[str, str], int]) -> None:
    """What the `autoscale` rules do not allow: it drains, or ends at once where a command said so.

    A command's word holds in any tick; what the documents alone say needs the permission to end.
    """
    rules = rules_now(draft)
    spared = 0
    for instance, why in chain(_forbidden(draft, rules), _excess(draft, rules)):
        if instance.id in draft.leaving or not draft.covers(id=instance.id, pool=instance.pool):
            continue
        at_once = rules.at_once(instance)
        goes_on = instance.draining.startswith("autoscale")  # an earlier apply's drain
        if at_once or (draft.rules_documents and (draft.may_end(instance.pool) or goes_on)):
            _leave(draft, instance, leave=Leave(why=why, until=draft.now if at_once else None), kept=kept)
        else:
            spared += draft.rules_documents
    if spared:
        why = f"{spared} more than the autoscale rules allow, but this apply may not end them"
        draft.cannot("project", f"{why}: {without('POOL')}")


def _forbidden(draft: Draft, rules: Rules) -> list[tuple[Instance, str]]:
    """Spot instances of types that no rule lists, or all of them where spot instances are disabled."""
    if not rules.bind:
        return []
    found = ((one, rules.forbids(one)) for one in _at_hand(draft))
    return [(one, why) for one, why in found if why]


def _excess(draft: Draft, rules: Rules) -> Iterator[tuple[Instance, str]]:
    """Those above each rule's maximum, the least worth first; what leaves already is none of them."""
    for cap in rules.caps:
        staying = [one for one in _at_hand(draft) if covers(cap, one) and not rules.forbids(one)]
        going = sorted(staying, key=lambda each: _worth(draft, each))[: max(0, len(staying) - cap.max)]
        yield from ((one, f"autoscale allows {cap.max} {rule_words(cap)}") for one in going)


def _at_hand(draft: Draft) -> Iterator[Instance]:
    """What is unknown may be gone already: it is neither ended nor a reason to end another. Nor is what nobody owns."""
    there = (one for one in draft.living.values() if not one.orphan and one.place not in draft.unknown)
    return (one for one in there if one.id not in draft.leaving)


def _worth(draft: Draft, instance: Instance) -> tuple[int, bool, object, int, str]:
    """Who goes first: free before busy, those that drain already, the dearest, the newest."""
    busy = len(draft.jobs.get(instance.id, ()))
    return (busy, not instance.draining, -price_of(instance), -instance.created_at, instance.name)
