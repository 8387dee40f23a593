"""The autoscale rules in force: the configuration's, with overrides on top. Pure.

A rule caps the instances of a type in a region by purchase type, over all pools. Once there is a list of
rules, spot instances are made only of the types that it has: where it is empty, of none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from schemas.base import place_of
from schemas.desired import Cap, Desired
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.state import Override

EVERY_RULE = "every rule"
SPOT = "spot instances"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """`exist`: there is a list, were it empty. `enabled` false: no spot instances at all.

    `hasty` are the rules that commands spoke of: what is too many by one of them ends at once.
    """

    caps: tuple[Cap, ...] = ()
    exist: bool = False
    enabled: bool = True
    hasty: tuple[Cap, ...] = ()

    @property
    def bind(self) -> bool:
        """Whether anything at all is forbidden or counted."""
        return self.exist or not self.enabled

    def forbids(self, machine: Instance | Offer) -> str:
        """Why there may be none of it, however few there are; "" if there may be some."""
        if not machine.spot or not self.bind:
            return ""
        if not self.enabled:
            return "autoscale is disabled: no spot instances"
        if any(covers(cap, machine) for cap in self.caps):
            return ""
        where = place_of(machine.backend, machine.region)
        return f"autoscale allows no spot {machine.instance_type} in {where}"

    def at_once(self, machine: Instance) -> bool:
        """A command's word, not the documents', makes a spot instance go."""
        return machine.spot and any(covers(cap, machine) for cap in self.hasty)


def rules_of(desired: Desired, words: Iterable[Override]) -> Rules:
    """The documents' rules under the autoscale words in force. The order of the words does not matter:

    a word about every rule has taken those before it away, and of each rule there is one word at most.
    """
    words = sorted(words, key=lambda word: word.subject)
    cleared = any(word.subject == EVERY_RULE for word in words)
    caps = {} if cleared else {_key(cap, index): cap for index, cap in enumerate(desired.caps)}
    enabled = next((word.enabled for word in words if word.enabled is not None), desired.autoscale_enabled)
    hasty = [Cap(instance_type="", max=0)] if cleared or any(word.enabled is False for word in words) else []
    for cap in (word.cap for word in words if word.cap is not None):
        caps = {key: known for key, known in caps.items() if not alike(known, cap)}
        if cap.max:
            caps[_key(cap, -1)] = cap
        hasty.append(cap)
    # A command that removed the last rule leaves an empty list, as its edit of the documents does: never an allowance.
    spoken = any(word.cap is not None for word in words)
    exist = bool(caps) or cleared or spoken or desired.ruled or bool(desired.caps)
    return Rules(caps=tuple(caps.values()), exist=exist, enabled=enabled, hasty=tuple(hasty))


def _key(cap: Cap, index: int) -> tuple[str, int]:
    """Documents may say a rule twice: both hold."""
    return rule_words(cap), index


def alike(one: Cap, other: Cap) -> bool:
    """The same rule, whatever its maximum."""
    return replace(one, max=0) == replace(other, max=0)


def covers(cap: Cap, machine: Instance | Offer) -> bool:
    return (
        cap.spot == machine.spot
        and cap.instance_type in ("", machine.instance_type)
        and cap.backend in ("", machine.backend)
        and cap.region in ("", machine.region)
    )


def kind(machine: Cap | Instance | Offer) -> str:
    return "spot" if machine.spot else "on-demand"


def rule_words(cap: Cap) -> str:
    """`spot g5.xlarge in aws/us-east-1`: names the rule, without its maximum."""
    where = place_of(cap.backend, cap.region) if cap.backend else cap.region
    return f"{kind(cap)} {cap.instance_type}{f' in {where}' if where else ''}"


def word_of(override: Override) -> str:
    """What a command said, for the plan."""
    if override.cap is not None:
        allowed = f"at most {override.cap.max}" if override.cap.max else "no rule for"
        return f"{allowed} {override.subject}"
    if override.enabled is not None:
        return "enabled" if override.enabled else "disabled: no spot instances"
    return "no rule is left: no spot instances but of the types allowed since"
