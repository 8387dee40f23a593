"""Overrides that `dstack autoscale` writes; they hold until another configuration is applied. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from reconciler.state.autoscale_rules import EVERY_RULE, SPOT, rule_words
from schemas.desired import Cap
from schemas.state import Override, State


def say_rule(state: State, cap: Cap, *, by: str, now: int) -> State:
    """The rule as it is from now on, in place of the one that is like it; a maximum of 0 takes it away."""
    return _said(state, Override(kind="autoscale", subject=rule_words(cap), cap=cap, by=by, at=now))


def say_cleared(state: State, *, by: str, now: int) -> State:
    """No rule is left, neither of the documents nor of earlier words."""
    kept = tuple(each for each in state.overrides if each.kind != "autoscale" or each.cap is None)
    return _said(replace(state, overrides=kept), Override(kind="autoscale", subject=EVERY_RULE, by=by, at=now))


def say_enabled(state: State, *, enabled: bool, by: str, now: int) -> State:
    """Whether there may be spot instances at all; the rules stay as they are."""
    return _said(state, Override(kind="autoscale", subject=SPOT, enabled=enabled, by=by, at=now))


def _said(state: State, word: Override) -> State:
    kept = tuple(each for each in state.overrides if (each.kind, each.subject) != (word.kind, word.subject))
    digest = state.applied.revision.digest if state.applied else ""
    return replace(state, overrides=(*kept, replace(word, digest=digest)))
