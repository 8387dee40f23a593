"""Ask Vast.ai about one account: its requests, their pace, and what its errors mean."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from backends.credentials import credential
from backends.errors import LackingHere, TryLater
from backends.http import Api
from backends.http_answers import ApiError, Dialect, HttpAnswer, Meaning, base_url, rows
from schemas.desired import BackendConfig

ADDRESS = "https://console.vast.ai"
PATIENCE = 40.0
"""Seconds for one call, with what is repeated because Vast.ai was asked too often."""
PAGE = 25
"""Instances of a page: the most that Vast.ai gives."""
PAGES = 400
GAP = 3.0
"""Seconds between two deletions: Vast.ai refuses more."""
BALANCE = "balance"
_THRESHOLD = re.compile(r"threshold=(\d+(?:\.\d+)?)")
_TOO_POOR = re.compile(
    r"\b(insufficient|not enough|lacks?|no|low|negative)\b.{0,20}\b(credit|balance|funds)\b"
    r"|\b(credit|balance|funds)\b.{0,20}\b(insufficient|low|negative|exhausted)\b",
    re.IGNORECASE,
)
_CODES = ("no_such_ask", "no_such_instance", "invalid_price")


def words_of(body: Mapping[str, Any]) -> str:
    """Vast.ai's message, under whichever of its names for it."""
    return next((str(body[key]) for key in ("msg", "detail", "message") if body.get(key)), "")


def code_of(body: Mapping[str, Any]) -> str:
    """Its code, which may stand in the message alone, with a more general one beside it."""
    said = f"{body.get('error') or ''} {words_of(body)}"
    if _TOO_POOR.search(said):
        return BALANCE
    return next((code for code in _CODES if code in said), str(body.get("error") or ""))


def made_by(body: Mapping[str, Any]) -> str:
    """The contract that an answer names, "" for none."""
    found = body.get("new_contract")
    return str(found) if found and str(found).isdigit() else ""


_POOR: dict[tuple[int, str], Meaning] = {(status, BALANCE): "quota" for status in (200, 400, 402, 403, 404, 410)}
DIALECT = Dialect(
    errors={
        **_POOR,
        (200, "no_such_instance"): "missing",
        (200, ""): "capacity",
        (400, "no_such_ask"): "capacity",
        (404, "no_such_ask"): "capacity",
        (410, ""): "capacity",
        (400, "invalid_price"): "capacity",
        (400, "invalid_args"): "permanent",
        (400, "no_ssh_key_for_vm"): "permanent",
        (401, ""): "permanent",
        (403, ""): "permanent",
        (404, "no_such_instance"): "missing",
        (404, "not_found"): "missing",
        (410, "no_such_instance"): "missing",
    },
    code=code_of,
    words=words_of,
    quota=lambda body: BALANCE if code_of(body) == BALANCE else "",
    made=made_by,
)


def api_of(config: BackendConfig, *, public: bool = False) -> Api:
    """The way to the account of `config`. `public`: for requests that Vast.ai answers without a key, too."""

    def headers() -> Mapping[str, str]:
        try:
            return {"Authorization": f"Bearer {credential(config, 'api_key', default='VASTAI_API_KEY')}"}
        except LackingHere:
            if public:
                return {}
            raise

    return Api(base_url(ADDRESS, config.options.get("endpoint") or ""), headers=headers, dialect=DIALECT)


class VastAccount:
    """Requests to one account. Each raises `TryLater`, `ApiError` or `BackendError`.

    `wait`: how seconds are waited, between requests that Vast.ai wants apart.
    """

    def __init__(self, api: Api, market: Api, *, wait: Callable[[float], None] = time.sleep) -> None:
        self._api, self._market, self._wait = api, market, wait

    def id(self) -> str:
        """Of the account, whatever key is used."""
        found = self._read("/api/v0/users/current/").json.get("id")
        if isinstance(found, bool) or not isinstance(found, int) or found <= 0:
            raise TryLater("Vast.ai did not name the account")
        return str(found)

    def search(self, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Offers of the market. Asked by POST, but a search: it may be repeated."""
        api = self._market

        def ask(deadline: float) -> HttpAnswer:
            return api.write("POST", "/api/v0/bundles/", dict(query), deadline=deadline)

        return rows(self._patiently(api, ask), "offers", where="Vast.ai's offers")

    def create(self, ask: str, body: Mapping[str, Any]) -> HttpAnswer:
        """Rent the offer `ask`, sent one time."""
        return self._api.write("PUT", f"/api/v0/asks/{ask}/", dict(body), deadline=self._api.deadline(PATIENCE))

    def contracts(self) -> tuple[list[dict[str, Any]], int | None]:
        """Every contract of the account, and Vast.ai's own time (Unix) as it answered.

        Pages go by ascending id, so that one that begins or ends meanwhile hides no other. Where fewer came than
        Vast.ai counts, the listing is refused: a machine that is missing from it would count as gone.
        """
        found: dict[int, dict[str, Any]] = {}
        last: HttpAnswer | None = None
        for last in self._pages():
            for one in rows(last, "instances", where="Vast.ai's instances"):
                if not isinstance(one.get("id"), int):
                    raise TryLater("Vast.ai's instances: one has no id")
                found[one["id"]] = one
        counted = last.json.get("total_instances") if last else None
        if isinstance(counted, int) and len(found) < counted:
            raise TryLater(f"Vast.ai's instances: {len(found)} of {counted} were listed")
        return list(found.values()), last.clock if last else None

    def _pages(self) -> Iterator[HttpAnswer]:
        token = ""
        for _ in range(PAGES):
            query = {"limit": str(PAGE), "order_by": json.dumps([{"col": "id", "dir": "asc"}])}
            answer = self._read("/api/v1/instances/", {**query, "after_token": token} if token else query)
            yield answer
            token, before = str(answer.json.get("next_token") or ""), token
            if not token:
                return
            if token == before:
                raise TryLater("Vast.ai's instances: a page leads to itself")
        raise TryLater(f"Vast.ai's instances: more than {PAGES} pages")

    def contract(self, id: str) -> dict[str, Any] | None:
        """One contract; `None` where Vast.ai says that there is none."""
        try:
            answer = self._read(f"/api/v0/instances/{id}/")
        except ApiError as error:
            if error.meaning == "missing":
                return None
            raise
        if "instances" not in answer.json:
            if code_of(answer.json) == "no_such_instance":
                return None
            raise TryLater(f"Vast.ai's instance {id}: the answer does not hold it")
        found = answer.json["instances"]
        if found is not None and not (isinstance(found, dict) and str(found.get("id")) == id):
            raise TryLater(f"Vast.ai's instance {id}: the answer is of another shape")
        return found

    def destroy(self, id: str) -> str:
        """Ask for the end of a contract: "" where it was accepted or nothing is there, else Vast.ai's words."""

        def ask(deadline: float) -> HttpAnswer:
            return self._api.write("DELETE", f"/api/v0/instances/{id}/", deadline=deadline)

        try:
            answer = self._patiently(self._api, ask)
        except ApiError as error:
            if error.meaning == "missing":
                return ""
            raise
        accepted = answer.json.get("success") is True or code_of(answer.json) == "no_such_instance"
        return "" if accepted else words_of(answer.json) or code_of(answer.json) or "no reason given"

    def pause(self) -> None:
        """Between two deletions."""
        self._wait(GAP)

    def _read(self, path: str, query: Mapping[str, str] | None = None) -> HttpAnswer:
        return self._patiently(self._api, lambda deadline: self._api.read(path, query=query, deadline=deadline))

    def _patiently(self, api: Api, ask: Callable[[float], HttpAnswer]) -> HttpAnswer:
        """What may be asked again, asked again where Vast.ai says that it was too soon; at most 3 times."""
        deadline = api.deadline(PATIENCE)
        pause = GAP
        for _ in range(3):
            try:
                return ask(deadline)
            except TryLater as busy:
                if "429" not in str(busy):
                    raise
                said = _THRESHOLD.search(str(busy))
                wanted = max(busy.retry_after, float(said[1]) + 0.5 if said else pause)
                if api.deadline(wanted) >= deadline:
                    raise
                self._wait(wanted)
                pause *= 2
        return ask(deadline)
