"""The state as bytes and back: JSON that every YAML reader reads equally, one record a line.

No I/O here. What would read back differently somewhere is escaped or cleaned before it is
written; what is not exactly a state of ours is refused, with one message, before it is used.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from reconciler.state.errors import StateRefused
from reconciler.state.invariants import damage
from reconciler.store.format_upgrade import STEPS, Raw, older, upgraded
from reconciler.store.moved_pointer import moved_to
from schemas.state import VERSION, Applied, Place, State
from schemas.strict_json import duplicate_key

COLLECTIONS = (
    "history",
    "places",
    "instances",
    "runs",
    "attempts",
    "intents",
    "wishes",
    "overrides",
    "capacity",
    "tombstones",
    "ticks",
    "untold",
    "paces",
    "unowned",
    "backoffs",
    "used_plans",
)
# A YAML reader gives up on a longer key.
KEY_LIMIT = 1024


class Header(NamedTuple):
    """The first line of a state: enough to compare two of them without reading the rest."""

    version: int
    project: str
    lineage: str
    generation: int


def dumps(state: State) -> bytes:
    """UTF-8. Lone surrogates become U+FFFD; a key of options over 1,023 characters is `StateRefused`, an older
    format too: what was read as if it were today's must not be taken for it. So is what `loads` would refuse.
    """
    if why := older(state.version):
        raise StateRefused(why)
    _refuse_to_write(state)
    try:
        text = _lines(_portable_options(state))
    except UnicodeEncodeError:
        state = msgspec.convert(_without_surrogates(msgspec.to_builtins(state)), State)
        _refuse_to_write(state)  # ids that differed by surrogates alone are equal now
        text = _lines(_portable_options(state))
    return _escape(text)


def loads(data: bytes, source: str, *, steps: Mapping[int, Callable[[Raw], Raw]] = STEPS) -> State:
    """A state, or `StateRefused` naming `source`, what is wrong and what to do next. Nothing else is raised.

    One of an older format comes as today's, with its old `version`: it can be looked at, and not written.
    """
    _refuse_foreign(data, source)
    try:
        with _gc_paused():
            state = _decoded(data, steps=steps)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise StateRefused(_why(data, source, error)) from error
    if state.version != VERSION and state.version not in steps:
        raise StateRefused(_wrong_version(source, state.version))
    if why := damage(state):
        raise StateRefused(f"{source}: damaged: {why}; restore it from a copy")
    if why := duplicate_key(data, again=_again(state)):
        raise StateRefused(f"{source}: damaged: {why}; keep the right one of the two, or restore it from a copy")
    return state


def _again(state: State) -> bytes:
    try:
        return _lines(state)
    except UnicodeEncodeError:
        return b""  # then every key is looked at


def _refuse_to_write(state: State) -> None:
    if why := damage(state):
        raise StateRefused(
            f"the new state was not written: {why}, so that no command could read it again. Nothing was changed. "
            "This is a defect of dstack: report it with the output of `dstack state pull`"
        )


def header(data: bytes) -> Header | None:
    """`None` where the first line is not one that `dumps` wrote."""
    first = data.split(b"\n", 1)[0].rstrip().rstrip(b",") + b"}"
    try:
        return Header(**msgspec.json.decode(first, type=_HeaderLine).known())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def header_of(state: State) -> Header:
    return Header(state.version, state.project, state.lineage, state.generation)


def refuse_backwards(source: str, old: Header | None, new: State, *, equal: bool = False) -> None:
    """`StateRefused` where `new` is of another lineage than `old`, or not newer (`equal`: not older)."""
    if old is None:
        return
    if old.lineage != new.lineage:
        raise StateRefused(
            f"{source}: lineage {new.lineage} is another world than {old.lineage}; "
            "nothing was touched. Restore the right copy, or `dstack state rebuild`"
        )
    if new.generation < old.generation or (new.generation == old.generation and not equal):
        raise StateRefused(
            f"{source}: generation {new.generation} after {old.generation} was seen: a restored backup, it seems; "
            "`dstack state rebuild` writes a newer one"
        )


# ---------------------------------------------------------------- writing

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(State)


def _lines(state: State) -> bytes:
    head = {name: getattr(state, name) for name in Header._fields}
    parts = [_ENCODER.encode(head)[:-1]]
    if state.applied is not None:
        parts.append(b'"applied":' + _ENCODER.encode(state.applied))
    if state.destroyed is not None:
        parts.append(b'"destroyed":' + _ENCODER.encode(state.destroyed))
    for name in COLLECTIONS:
        records = getattr(state, name)
        if records:
            lines = b",\n".join(map(_ENCODER.encode, records))
            parts.append(b'"' + name.encode() + b'":[\n' + lines + b"\n]")
    return b",\n".join(parts) + b"\n}\n"


# What PyYAML, ruamel or libyaml refuse or read back changed when it stands raw: DEL, C1 with
# U+0085, the Unicode line ends, the byte order mark and the two non-characters.
_UNSAFE = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]|\xef\xbb\xbf|\xef\xbf[\xbe\xbf]")


def _escape(text: bytes) -> bytes:
    if text.isascii() and b"\x7f" not in text:
        return text
    return _UNSAFE.sub(lambda found: b"\\u%04x" % ord(found.group().decode()), text)


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    return value


def _portable_options(state: State) -> State:
    """Options of backends are the one place where a float or a long key can come from."""
    places = tuple(_portable_place(place) for place in state.places)
    return msgspec.structs.replace(state, places=places, applied=_portable_applied(state.applied))


def _portable_place(place: Place) -> Place:
    if not place.config.options:
        return place
    config = msgspec.structs.replace(place.config, options=_portable(place.config.options))
    return msgspec.structs.replace(place, config=config)


def _portable_applied(applied: Applied | None) -> Applied | None:
    if applied is None:
        return None
    backends = tuple(
        msgspec.structs.replace(backend, options=_portable(backend.options)) for backend in applied.desired.backends
    )
    return msgspec.structs.replace(applied, desired=msgspec.structs.replace(applied.desired, backends=backends))


def _portable(value: Any) -> Any:
    """`1e-07` is a string to YAML 1.1; `1.0e-07` is a number to every reader."""
    if isinstance(value, float) and "e" in repr(value):
        mantissa, _, exponent = repr(value).partition("e")
        sign = "" if exponent[0] in "+-" else "+"
        return msgspec.Raw(f"{mantissa}{'' if '.' in mantissa else '.0'}e{sign}{exponent}".encode())
    if isinstance(value, dict):
        for key in value:
            if len(str(key)) >= KEY_LIMIT:
                raise StateRefused(
                    f"an option of a backend has a key of {len(str(key))} characters ({str(key)[:20]}…), "
                    f"which YAML readers cannot read back: at most {KEY_LIMIT - 1}"
                )
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    return value


# ---------------------------------------------------------------- reading


def _decoded(data: bytes, *, steps: Mapping[int, Callable[[Raw], Raw]]) -> State:
    """Only a state that says in its first line that it is older takes the long way."""
    seen = header(data)
    if seen is None or seen.version not in steps or seen.version >= VERSION:
        return _DECODER.decode(data)
    raw = upgraded(msgspec.json.decode(data), version=seen.version, steps=steps)
    return msgspec.convert(raw, State)


@contextmanager
def _gc_paused() -> Iterator[None]:
    """Building 100,000 records would otherwise be scanned over and over: twice the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Versioned(msgspec.Struct):
    version: int


class _HeaderLine(_Versioned):
    project: str
    lineage: str
    generation: int = 0

    def known(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in Header._fields}


_CONFLICT = re.compile(rb"^(<{7}|={7}|>{7}|\|{7})( |$)", re.MULTILINE)


def _refuse_foreign(data: bytes, source: str) -> None:
    if not data.strip():
        raise StateRefused(
            f"{source}: empty, so it was cut short; nothing was touched. Restore it, "
            "or move it away and `dstack state rebuild`"
        )
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        raise StateRefused(f"{source}: not a state of ours (it starts with a byte order mark); restore it")


def _why(data: bytes, source: str, error: Exception) -> str:
    """Only asked when reading failed, so it may look at everything again."""
    if _CONFLICT.search(data):
        return (
            f"{source}: holds conflict markers of a merge. A state is never merged and does not belong in git: "
            "restore the newest copy, or `dstack state rebuild`"
        )
    if moved := moved_to(data):
        return (
            f"{source}: sealed: the state of this project lies at {moved} now: write `state: {moved}`, "
            "or pull the commit that does"
        )
    seen = header(data)
    version = seen.version if seen else _loose_version(data)
    if version is not None and version != VERSION and version not in STEPS:
        return _wrong_version(source, version)
    if not data.rstrip().endswith(b"}") and data.lstrip().startswith(b"{"):
        return f"{source}: truncated after {len(data)} bytes; restore it, or move it away and `dstack state rebuild`"
    if version is None:
        return f"{source}: not a state of ours; restore it, or move it away and `dstack state rebuild`"
    unknown = re.search(r"unknown field `([^`]*)`(?: - at `\$?\.?([^`]*)`)?", str(error))
    if unknown:
        field, at = unknown.groups()
        where = f" in {at}" if at else ""
        return (
            f"{source}: unknown field `{field}`{where}; it would be lost, so nothing is read. "
            "Use the version of dstack that wrote it, or take the field out"
        )
    where = str(error) if isinstance(error, msgspec.ValidationError) else f"at {_position(data, error)}"
    return f"{source}: damaged: {where}; restore it, or move it away and `dstack state rebuild`"


def _position(data: bytes, error: Exception) -> str:
    found = re.search(r"byte (\d+)", str(error))
    if not found:
        return "an unknown place (not UTF-8, or nested too deeply)"
    return f"line {data.count(10, 0, int(found.group(1))) + 1}"


def _loose_version(data: bytes) -> int | None:
    """The version of something that is JSON and looks like a state, in whatever layout."""
    try:
        found = msgspec.json.decode(data, type=_Versioned)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return found.version


def _wrong_version(source: str, version: int) -> str:
    if version > VERSION:
        return f"{source}: written by a newer dstack (format {version}, this one reads {VERSION}): upgrade dstack"
    return f"{source}: format {version} is not one that was ever written (this dstack reads {VERSION}); restore it"
