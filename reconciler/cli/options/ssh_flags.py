"""Take the flags of `ssh` that people paste with its destination."""

from __future__ import annotations

import re

import typer

from reconciler.cli.options.help_format import HelpCommand

KEY = "dstack.ssh_flags"
_FLAGS = re.compile("-[46AaCfgKkMNnqsTtVvXxY]+")
_VALUED = re.compile("-[ilopJF]|--(?!take-over$|yes$|help$)[a-z-]+")  # of `pool add-ssh`: the next word is theirs


class TakesSshFlags(HelpCommand):
    """A command that also takes ssh's flags without a value. `given(ctx)` has them, a letter each."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        kept, met = split(args)
        ctx.meta[KEY] = met
        return super().parse_args(ctx, kept)


def given(ctx: typer.Context) -> tuple[str, ...]:
    """As typed, each once."""
    return tuple(ctx.meta.get(KEY, ()))


def split(args: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """What is left for the command, and ssh's own flags: `-4A` is two of them."""
    kept: list[str] = []
    met: dict[str, None] = {}
    for number, arg in enumerate(args):
        if arg == "--":
            kept += args[number:]
            break
        if _FLAGS.fullmatch(arg) and not (kept and kept[-1] == args[number - 1] and _VALUED.fullmatch(kept[-1])):
            met |= dict.fromkeys(f"-{letter}" for letter in arg[1:])
        else:
            kept.append(arg)
    return kept, tuple(met)
