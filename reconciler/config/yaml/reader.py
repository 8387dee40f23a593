"""Read one YAML file into plain values that remember where each was written.

The file is read as events (libyaml), never constructed: no recursion, no tags that make
objects, no YAML 1.1 surprises. `no`, `on`, `0777`, `22:59`, `3000:22` and dates stay text;
`true`, `null`, decimal integers and floats (`1e3` too) are what they look like. Whatever the
bytes are, the answer is a value or located problems, in bounded time and memory: a file has
at most 8 MiB, 64 levels and a million values once its aliases are followed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from reconciler.config.files import MAX_BYTES, read_bytes
from reconciler.config.problems import Problem
from reconciler.config.yaml.values import Mapping, Mark, Number, Sequence, SourceText, scalar_text

MAX_DEPTH = 64
MAX_VALUES = 1_000_000

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_DIGITS = re.compile(r"[-+]?[0-9]+")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_CONTROL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PREFIX = "tag:yaml.org,2002:"
_TAGGED: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}


def read_yaml(file: Path, *, shown: str) -> tuple[SourceText, bytes]:
    """The file's value and its bytes. `shown` is the path as people know it, for the problems."""
    data = read_bytes(file)
    if isinstance(data, str):
        return unreadable(shown, data), b""
    return parse_yaml(data, shown=shown), data


def parse_yaml(data: bytes, *, shown: str) -> SourceText:
    if len(data) > MAX_BYTES:
        return _refused(shown, f"is larger than {MAX_BYTES // 1024**2} MiB: not read")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, col = _position(data[: error.start].decode("utf-8-sig", "replace"))
        return _refused(shown, f"is not UTF-8 text (byte 0x{data[error.start]:02x})", (line, col))
    if found := _CONTROL.search(text):
        message = f"the control character U+{ord(found[0]):04X} is not allowed in YAML"
        return _refused(shown, message, _position(text[: found.start()]))
    return _Reader(text, shown).read()


def unreadable(shown: str, why: str) -> SourceText:
    return _refused(shown, f"cannot be read: {why}")


def _refused(shown: str, message: str, mark: Mark = (1, 1)) -> SourceText:
    return SourceText(shown, None, mark, (Problem(shown, *mark, message),))


def _position(before: str) -> Mark:
    lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", before)
    return len(lines), len(lines[-1]) + 1


class _Stop(Exception):
    """Reading cannot go on; the problem is noted."""


class _Reader:
    """Turns events into values, with its own stack: depth is a number here, not the interpreter's."""

    def __init__(self, text: str, shown: str) -> None:
        self.text = text
        self.shown = shown
        self.problems: list[Problem] = []
        self.anchors: dict[str, Any] = {}
        self.weight = 0
        self.root: Any = None
        self.mark: Mark = (1, 1)
        self.stack: list[_Open] = []

    def read(self) -> SourceText:
        parser = _PARSER(self.text)
        try:
            self._documents(parser)
        except yaml.MarkedYAMLError as error:
            self._syntax(error)
        except yaml.YAMLError as error:
            self._note((1, 1), f"not YAML: {str(error).splitlines()[0]}")
        except _Stop:
            self.root = None
        finally:
            parser.dispose()
        return SourceText(
            self.shown, None if self.problems and self.root is None else self.root, self.mark, tuple(self.problems)
        )

    def _documents(self, parser: Any) -> None:
        seen = 0
        for event in _events(parser):
            if isinstance(event, yaml.DocumentStartEvent):
                seen += 1
                if seen > 1:
                    self._fail(_mark(event), "a second document begins here (`---`): one file holds one")
            elif isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
                self._event(event)

    def _event(self, event: Any) -> None:
        mark = _mark(event)
        if isinstance(event, yaml.ScalarEvent):
            self._add(self._anchor(event, self._scalar(event, mark)), mark)
        elif isinstance(event, yaml.AliasEvent):
            self._add(self._alias(event.anchor, mark), mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            opened = self.stack.pop()
            opened.close(self)
            self._add(opened.value, opened.mark)
        else:
            self._open(event, mark)

    def _open(self, event: Any, mark: Mark) -> None:
        if len(self.stack) >= MAX_DEPTH:
            self._fail(mark, f"nested deeper than {MAX_DEPTH} levels")
        mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", _PREFIX + ("map" if mapping else "seq")):
            self._note(mark, f"the tag `{_tag(event.tag)}` is not supported")
        value: Any = Mapping() if mapping else Sequence()
        opened = _Open(value, mark)
        self.stack.append(opened)
        if event.anchor:
            self.anchors[event.anchor] = opened
            opened.anchor = event.anchor

    def _anchor(self, event: Any, value: Any) -> Any:
        if event.anchor:
            self.anchors[event.anchor] = value
        return value

    def _alias(self, name: Any, mark: Mark) -> Any:
        if name not in self.anchors:
            self._fail(mark, f"the alias `*{name}` has no anchor `&{name}` before it")
        value = self.anchors[name]
        if isinstance(value, _Open):
            self._fail(mark, f"the alias `*{name}` stands inside its own anchor")
        return value

    def _add(self, value: Any, mark: Mark) -> None:
        self.weight += 1
        if self.weight > MAX_VALUES:
            self._fail(mark, f"more than {MAX_VALUES:,} values")
        if not self.stack:
            self.root, self.mark = value, mark
            return
        opened = self.stack[-1]
        opened.add(value, mark, self)
        holder = opened.value
        holder.weight += getattr(value, "weight", 1)
        holder.height = max(holder.height, getattr(value, "height", 0) + 1)
        if holder.weight > MAX_VALUES:
            self._fail(mark, f"the aliases stand for more than {MAX_VALUES:,} values")
        if holder.height > MAX_DEPTH:
            self._fail(mark, f"nested deeper than {MAX_DEPTH} levels")

    def _scalar(self, event: Any, mark: Mark) -> Any:
        text: str = event.value
        if "\0" in text:
            self._note(mark, "holds a zero byte (`\\0`), which nothing on a host can take")
        if event.tag in (None, "!"):
            return _plain(text) if event.implicit[0] else text
        if event.tag == _PREFIX + "str":
            return text
        value = _plain(text)
        if not isinstance(value, _TAGGED.get(event.tag.removeprefix(_PREFIX), ())):
            self._note(mark, f"the tag `{_tag(event.tag)}` is not supported here")
        return value

    def _syntax(self, error: yaml.MarkedYAMLError) -> None:
        self.root = None
        mark = error.problem_mark or error.context_mark
        where = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        self._note(where, self._plainly(error, where))

    def _plainly(self, error: yaml.MarkedYAMLError, where: Mark) -> str:
        lines = self.text.splitlines()
        line = lines[where[0] - 1] if where[0] <= len(lines) else ""
        if line[where[1] - 1 : where[1]] == "\t" or re.match(r" *\t", line):
            return "a tab cannot indent YAML: use spaces"
        said = error.problem or error.context or "it cannot be read"
        return f"not valid YAML: {said}" + (f" ({error.context})" if error.problem and error.context else "")

    def _note(self, mark: Mark, message: str) -> None:
        self.problems.append(Problem(self.shown, *mark, message))

    def _fail(self, mark: Mark, message: str) -> None:
        self._note(mark, message)
        raise _Stop


class _Open:
    """A collection whose end has not come yet."""

    def __init__(self, value: Any, mark: Mark) -> None:
        self.value = value
        self.mark = mark
        self.anchor = ""
        self.key: str | None = None
        self.key_mark: Mark = mark
        self.merges: list[tuple[Any, Mark]] = []

    def add(self, value: Any, mark: Mark, reader: _Reader) -> None:
        if isinstance(self.value, Sequence):
            self.value.append(value)
            self.value.value_marks.append(mark)
        elif self.key is None:
            self._take_key(value, mark, reader)
        else:
            self._take_value(self.key, value, mark)
            self.key = None

    def _take_key(self, value: Any, mark: Mark, reader: _Reader) -> None:
        text = "null" if value is None else scalar_text(value)
        if text is None:
            reader._note(mark, "a key is text here, not a list or a mapping")
            text = "?"
        if text in self.value.key_marks and text != "<<":
            line, col = self.value.key_marks[text]
            reader._note(mark, f"duplicate key `{text}`, first written at {reader.shown}:{line}:{col}")
        self.key, self.key_mark = text, mark

    def _take_value(self, key: str, value: Any, mark: Mark) -> None:
        if key == "<<":
            self.merges.append((value, self.key_mark))
        elif key not in self.value.key_marks:
            self.value[key] = value
            self.value.key_marks[key], self.value.value_marks[key] = self.key_mark, mark

    def close(self, reader: _Reader) -> None:
        """Fill in what `<<` brings: written keys win, then the first merged."""
        for merged, mark in self.merges:
            for each in merged if isinstance(merged, Sequence) else [merged]:
                if not isinstance(each, Mapping):
                    reader._note(mark, "`<<` merges a mapping or a list of mappings")
                    continue
                for key in each.keys() - self.value.keys():
                    self.value[key] = each[key]
                    self.value.key_marks[key] = each.key_marks[key]
                    self.value.value_marks[key] = each.value_marks[key]
        if self.anchor:
            reader.anchors[self.anchor] = self.value


def _events(parser: Any) -> Iterator[Any]:
    while parser.check_event():
        yield parser.get_event()


def _mark(event: Any) -> Mark:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _tag(tag: str) -> str:
    return "!!" + tag.removeprefix(_PREFIX) if tag.startswith(_PREFIX) else tag


def _plain(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and text != "-0":
        return int(text)
    if _FLOAT.fullmatch(text) and not _DIGITS.fullmatch(text):
        number = Number(text)
        number.text = text
        return number if math.isfinite(number) else text
    return text
