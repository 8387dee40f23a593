"""Read the time from a server's `Date` header. Sends no credentials; an error response is enough."""

from __future__ import annotations

from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

TIMEOUT = 5.0


def date_of(url: str) -> int | None:
    """Epoch seconds by its `Date`; `None` where it does not answer in time, or not with one. One HEAD."""
    request = Request(url, method="HEAD")  # noqa: S310 - the endpoint that the state is read from
    try:
        with build_opener(_Here).open(request, timeout=TIMEOUT) as answer:
            return _told(answer.headers)
    except HTTPError as refusal:
        with refusal:
            return _told(refusal.headers)
    except (OSError, HTTPException, ValueError):
        return None


class _Here(HTTPRedirectHandler):
    """Its own date, not that of a page that it leads to."""

    def redirect_request(self, *args: Any, **named: Any) -> None:
        return None


def _told(headers: Message) -> int | None:
    """With how long the answer lay in a cache on its way."""
    try:
        date = parsedate_to_datetime(headers["Date"] or "")
        return int(date.timestamp()) + int(headers["Age"] or 0)
    except (ValueError, TypeError, OverflowError):
        return None
