"""How help looks: commands and options in groups, descriptions whole, examples last."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup

from reconciler.cli.options.examples import EXAMPLES
from reconciler.cli.options.sections import COMMANDS, OPTIONS, OTHER

MANY = 12
"""From so many options on they are shown in groups."""

Row = tuple[str, str]


_DURATION = re.compile(r"\d[0-9a-z]*")


def with_interval(args: list[str]) -> list[str]:
    """`--watch 30s` and `--watch=30s` as `--watch --every 30s`. Only a duration is taken: a file's name stays one."""
    found: list[str] = []
    for at, word in enumerate(args):
        name, equals, value = word.partition("=")
        if name == "--watch" and equals:
            found += ["--watch", "--every", value]
        elif at and args[at - 1] == "--watch" and _DURATION.fullmatch(word):
            found += ["--every", word]
        else:
            found.append(word)
    return found


class HelpCommand(TyperCommand):
    """A command whose help has its options in groups, and its examples."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer's own; an option that may have a value, such as `--watch 30s`, has it in an option of its own."""
        return super().parse_args(ctx, with_interval(args) if ctx.info_name == "apply" else args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments first; the options, grouped where they are many."""
        _write_parameters(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _write_examples(ctx, formatter)
        super().format_epilog(ctx, formatter)


class HelpGroup(TyperGroup):
    """A group whose help has its commands in groups, each with its whole description."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_parameters(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        named = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, one.get_short_help_str(limit=1000)) for name, one in named if one is not None and not one.hidden]
        sections = COMMANDS if ctx.parent is None else {}
        section_of = {name: title for title, names in sections.items() for name in names}
        order = list(section_of)
        rows.sort(key=lambda row: order.index(row[0]) if row[0] in section_of else len(order))
        _write_sections(formatter, rows, section_of)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _write_examples(ctx, formatter)
        super().format_epilog(ctx, formatter)


def _write_parameters(command: TyperCommand | TyperGroup, ctx: Any, formatter: Any) -> None:
    arguments: list[Row] = []
    options: list[Row] = []
    section_of: dict[str, str] = {}
    for parameter in command.get_params(ctx):
        if (row := parameter.get_help_record(ctx)) is None:
            continue
        (arguments if parameter.param_type_name == "argument" else options).append(row)
        section_of[row[0]] = OPTIONS.get(parameter.name or "", "Options")
    if arguments:
        with formatter.section("Arguments"):
            formatter.write_dl(arguments)
    _write_sections(formatter, options, section_of if len(options) > MANY else {}, first="Options")


def _write_sections(formatter: Any, rows: Iterable[Row], section_of: dict[str, str], *, first: str = "") -> None:
    """In the order of the table; what stands in none comes last. `first` is what comes before all others."""
    alone = first or ("Commands" if not section_of else OTHER)
    found: dict[str, list[Row]] = {first: []} if first else {title: [] for title in section_of.values()}
    for row in rows:
        found.setdefault(section_of.get(row[0], alone), []).append(row)
    for title, members in found.items():
        if members:
            with formatter.section(title):
                formatter.write_dl(members)


def _write_examples(ctx: Any, formatter: Any) -> None:
    lines = EXAMPLES.get(ctx.command_path.removeprefix("dstack").strip(), ())
    if lines:
        with formatter.section("Examples"):
            for line in lines:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
