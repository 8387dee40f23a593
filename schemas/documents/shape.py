"""How a value of a document is read: one function for the loader, one JSON Schema for editors.

A `Shape` in an `Annotated` type replaces pydantic's own reading, so that every message is a
sentence of ours and a model costs little to build. A reader raises `Wrong`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, ValidationError, core_schema

Path = tuple[str | int, ...]
Schema = dict[str, Any]
Form_ = TypeVar("Form_", bound="Form")


class Wrong(ValueError):
    """A value is not what its key takes. `found` has (path below the value, message) of each fault."""

    def __init__(self, message: str, *path: str | int, found: Iterable[tuple[Path, str]] = ()) -> None:
        self.found = (*found,) or ((path, message),)
        super().__init__("; ".join(text for _, text in self.found))


@dataclass(frozen=True, eq=False)
class Shape:
    """`read` turns what YAML gave into our value; `schema` describes what it accepts."""

    read: Callable[[Any], Any]
    schema: Schema | Callable[[], Schema]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        return dict(self.schema() if callable(self.schema) else self.schema)


class Form(BaseModel):
    """A mapping with known keys only. Absent and `null` are the same: `None`."""

    model_config = ConfigDict(extra="forbid", defer_build=True, frozen=True, title=None)


def each(read: Callable[[Any], Any], schema: Schema | Callable[[], Schema], *, least: int = 0) -> Shape:
    """A list whose items `read` reads; every bad item is reported."""

    def items(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise Wrong(f"should be a list, not {kind_of(value)}{_as_a_list(value)}")
        if len(value) < least:
            raise Wrong("the list is empty")
        read_items, found = [], []
        for index, item in enumerate(value):
            try:
                read_items.append(read(item))
            except Wrong as wrong:
                found += [((index, *path), message) for path, message in wrong.found]
        if found:
            raise Wrong("", found=found)
        return tuple(read_items)

    def described() -> Schema:
        items_schema = schema() if callable(schema) else schema
        return {"type": "array", "items": items_schema, **({"minItems": least} if least else {})}

    return Shape(items, described)


def _as_a_list(value: Any) -> str:
    """How one line of text would stand in a list; "" for what is no line of text."""
    if not isinstance(value, str) or not value or "\n" in value or len(value) > MOST_TEXT:
        return ""
    return f": write `- {value}` on a line of its own"


def one_of(*names: str, what: str = "") -> Shape:
    """One of some words; another one gets a suggestion."""

    def word(value: Any) -> str:
        if isinstance(value, str) and value in names:
            return value
        raise Wrong(not_among(value, names, what))

    return Shape(word, {"enum": list(names)})


def form(model: type[Form_], value: Any) -> Form_:
    """`value` as `model`, its faults told from where they are."""
    if not isinstance(value, dict):
        raise Wrong(f"should be a mapping, not {kind_of(value)}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Wrong("", found=faults(error, model)) from None


def read_form(model: type[Form_], raw: Any) -> tuple[Form_ | None, frozenset[str], list[tuple[Path, str]]]:
    """The form, the keys that it had to do without, and what is wrong with them.

    No form where a key is missing.
    """
    try:
        return model.model_validate(dict(raw)), frozenset(), []
    except ValidationError as error:
        found = faults(error, model)
        dropped = frozenset(str(each["loc"][0]) for each in error.errors() if each["loc"])
    try:
        return model.model_validate({key: value for key, value in raw.items() if key not in dropped}), dropped, found
    except ValidationError:
        return None, dropped, found


def inlined(model: type[Form]) -> Schema:
    """The model's schema, ready to stand inside another (it has no definitions of its own)."""
    described: Schema = plain(model.model_json_schema())
    return described


def plain(schema: Any) -> Any:
    """Without the titles that pydantic derives from names: they say nothing."""
    if isinstance(schema, list):
        return [plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    if kept.get("default", ...) is None:
        del kept["default"]
    return {key: plain(value) for key, value in kept.items()}


def faults(error: ValidationError, model: type[BaseModel]) -> list[tuple[Path, str]]:
    """pydantic's errors as ours: (path, sentence). A path ending in `KEY` is about the key itself."""
    found: list[tuple[Path, str]] = []
    for each_error in error.errors(include_url=False)[:MOST]:
        where, context = each_error["loc"], each_error.get("ctx", {}).get("error")
        if isinstance(context, Wrong):
            found += [((*where, *path), message) for path, message in context.found]
        elif each_error["type"] == "missing":
            about = getattr(model.model_fields.get(str(where[-1])), "description", None)
            found.append((where[:-1], f"`{where[-1]}` is missing" + (f": {about}" if about else "")))
        elif each_error["type"] == "extra_forbidden":
            found.append(((*where, KEY), unknown_key(str(where[-1]), model.model_fields)))
        elif context is not None:
            found.append((where, str(context)))
        else:
            found.append((where, f"should be a mapping, not {kind_of(each_error['input'])}"))
    return found


KEY = "\0key"
MOST_TEXT = 40
"""Characters of a value that a message repeats."""
MOST = 200
"""Nobody reads more faults of one mapping than this, and each costs a search for what was meant."""


def unknown_key(key: str, known: Iterable[str]) -> str:
    return f"unknown key `{key}`" + suggestion(key, known)


def not_among(value: Any, names: Iterable[str], what: str = "") -> str:
    names = list(names)
    said = f"`{value}`" if isinstance(value, str | int | float) and not isinstance(value, bool) else kind_of(value)
    hint = suggestion(str(value), names)
    known = ", ".join(names)
    return f"{said} is not {what or 'one of'}" + (hint or (f" {known}" if not what else f"; known: {known}"))


def suggestion(word: str, known: Iterable[str]) -> str:
    """`, did you mean …?` where something known is near; "" otherwise."""
    from difflib import get_close_matches

    folded = {name.lower().replace("_", "-"): name for name in islice(known, 300)}
    near = get_close_matches(word.lower().replace("_", "-")[:80], list(folded), n=1, cutoff=0.6)
    return f", did you mean `{folded[near[0]]}`?" if near else ""


def kind_of(value: Any) -> str:
    match value:
        case None:
            return "empty"
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case int() | float():
            return f"the number {value}"
    text = str(value)
    return f"the text `{text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 3] + '...'}`"
