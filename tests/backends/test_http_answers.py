"""What an HTTP answer means, as data: nothing that is not plainly an answer says that nothing is there."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from backends.errors import BackendError, TryLater
from backends.http_answers import (
    LOOKED_AT,
    ApiError,
    Dialect,
    Raw,
    base_url,
    clean,
    date_of,
    inflate,
    judge,
    launch_answer,
    retry_after,
    rows,
    segment,
)
from schemas.launch import Refused, Unknown

DIALECT = Dialect(
    errors={
        (400, "sold-out"): "capacity",
        (403, "over-quota"): "quota",
        (400, "bad-image"): "permanent",
        (404, ""): "missing",
        (409, "busy"): "later",
        (503, "sold-out"): "capacity",
    },
    code=lambda error: error["error"]["code"],
    words=lambda error: error["error"]["message"],
    quota=lambda error: error["error"]["limit"],
)
DATE = "Tue, 01 Dec 2026 01:00:00 GMT"
AT = 1796086800


def error(status: int, code: str = "", words: str = "no", **headers: str) -> Raw:
    body = json.dumps({"error": {"code": code, "message": words, "limit": "vcpus"}}).encode()
    return Raw(status=status, headers={name.replace("_", "-"): text for name, text in headers.items()}, body=body)


def read(raw: Raw, **options: Any) -> Any:
    return judge(raw, DIALECT, where="GET https://api/x", **options)


def test_a_success_has_its_content_and_the_time_of_the_cloud() -> None:
    answer = read(Raw(status=200, headers={"date": DATE}, body=b'{"a": 1}'))
    assert (answer.json, answer.clock) == ({"a": 1}, AT)
    assert read(Raw(status=200, body=b"{}")).clock is None


@pytest.mark.parametrize(
    ("raw", "meaning"),
    [
        (error(400, "sold-out"), "capacity"),
        (error(403, "over-quota"), "quota"),
        (error(400, "bad-image"), "permanent"),
        (error(404, "anything"), "missing"),
        (error(503, "sold-out"), "capacity"),
        (error(400, "never-seen"), ""),
        (error(401), ""),
    ],
)
def test_a_refusal_means_what_the_table_says(raw: Raw, meaning: str) -> None:
    with pytest.raises(ApiError) as found:
        read(raw)
    assert found.value.meaning == meaning


@pytest.mark.parametrize(
    "raw",
    [
        error(409, "busy"),
        error(429),
        error(408),
        error(500),
        error(503, "other"),
        Raw(status=200, body=b""),
        Raw(status=204, body=b""),
        Raw(status=200, body=b"[]"),
        Raw(status=200, body=b'"text"'),
        Raw(status=200, body=b"null"),
        Raw(status=200, body=b'{"instances": ['),
        Raw(status=200, body=b"[" * 100_000),
        Raw(status=200, body=b'{"a": "\xff"}'),
        Raw(status=200, headers={"content-type": "text/html"}, body=b"<html>Please log in</html>"),
        Raw(status=404, headers={"content-type": "text/html"}, body=b"<html>Not found</html>"),
        Raw(status=404, body=b""),
        Raw(status=400, body=b"[]"),
        Raw(status=302, headers={"location": "https://elsewhere/x"}),
        Raw(status=304),
    ],
)
def test_what_is_no_plain_answer_is_tried_later(raw: Raw) -> None:
    with pytest.raises(TryLater):
        read(raw)


def test_a_redirect_is_named_and_not_followed() -> None:
    with pytest.raises(TryLater, match=r"redirected to elsewhere; redirects are not followed"):
        read(Raw(status=307, headers={"location": "https://user:pw@elsewhere/x?key=1"}))


def test_an_empty_success_only_where_it_is_expected() -> None:
    assert read(Raw(status=204), empty=True).json == {}
    with pytest.raises(TryLater):
        read(Raw(status=200, body=b"<html>"), empty=True)


def test_an_array_only_where_it_is_expected() -> None:
    assert read(Raw(status=200, body=b"[1]"), array=True).json == {"items": [1]}
    with pytest.raises(TryLater, match="without a JSON array"):
        read(Raw(status=200, body=b"{}"), array=True)


def test_an_error_without_the_promised_shape_is_still_an_error() -> None:
    with pytest.raises(ApiError, match="no reason given") as found:
        read(Raw(status=400, body=b'{"error": "text"}'))
    assert found.value.meaning == ""


def test_a_message_has_the_vendors_words_and_no_secret() -> None:
    with pytest.raises(ApiError) as found:
        read(error(400, "bad-image", "key s3cr3t-key is\nnot\x1b[31m allowed"), secrets=["s3cr3t-key"])
    assert str(found.value) == "GET https://api/x: bad-image: key *** is not [31m allowed (HTTP 400)"


def test_how_long_to_wait_goes_with_the_refusal() -> None:
    with pytest.raises(TryLater) as busy:
        read(error(429, retry_after="17"))
    assert busy.value.retry_after == 17
    with pytest.raises(ApiError) as sold_out:
        read(error(400, "sold-out", retry_after="Tue, 01 Dec 2026 01:02:00 GMT", date=DATE))
    assert sold_out.value.retry_after == 120


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("30", 30),
        (" 30 ", 30),
        ("9999999999999", 3600),
        ("", 0),
        ("-5", 0),
        ("soon", 0),
        ("1.5", 0),
        ("٣", 0),
        ("Tue, 01 Dec 2026 01:00:30 GMT", 30),
        ("Tue, 01 Dec 2026 00:00:00 GMT", 0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 3600),
    ],
)
def test_retry_after_is_a_number_or_a_date(text: str, seconds: int) -> None:
    assert retry_after(text, now=AT) == seconds


def test_a_date_without_a_clock_says_nothing() -> None:
    assert retry_after(DATE, now=None) == 0
    assert date_of(DATE) == AT
    assert [date_of(text) for text in ("", "yesterday", "Tue, 99 Dec 2026 99:00:00 GMT")] == [None] * 3


def test_words_are_one_line_and_cut() -> None:
    assert clean("a\r\n\tb\x00c\u202ed\u2028e") == "a b c d e"
    assert len(clean("x" * 10_000)) == 300
    assert clean("x" * 10_000).endswith("…")


def test_a_secret_split_by_what_is_not_shown_hides_the_whole_message() -> None:
    assert "s3cr" not in clean("key s3cr\u200b3t-key", ["s3cr3t-key"])
    assert clean("both s3cr3t-key and s3cr3t-key", ["s3cr3t-key"]) == "both *** and ***"


def test_no_part_of_a_secret_is_left_at_the_end_of_a_long_message() -> None:
    for before in range(LOOKED_AT - 20, LOOKED_AT + 1):
        assert "s3c" not in clean(" " * before + "s3cr3t-key and more", ["s3cr3t-key"])


def test_a_refusal_of_a_launch_is_one_of_the_table() -> None:
    sold_out = ApiError("sold out", meaning="capacity", after=9)
    assert launch_answer(sold_out) == Refused(meaning="capacity", why="sold out", retry_after=9)
    quota = launch_answer(ApiError("no", meaning="quota", quota="vcpus"))
    assert quota == Refused(meaning="quota", why="no", quota="vcpus")
    assert launch_answer(ApiError("gone", meaning="missing")) == Unknown(why="gone")
    assert launch_answer(ApiError("what?", meaning="")) == Unknown(why="what?")
    assert launch_answer(TryLater("busy", retry_after=5)) == Unknown(why="busy", retry_after=5)


def test_a_list_that_is_not_there_is_not_empty() -> None:
    assert rows(read(Raw(status=200, body=b'{"data": [{"id": 1}]}')), "data", where="x") == [{"id": 1}]
    for body in (b"{}", b'{"data": null}', b'{"data": {}}', b'{"data": [1]}'):
        with pytest.raises(TryLater, match="no list of objects named data"):
            rows(read(Raw(status=200, body=body)), "data", where="x")


def test_unpacking_is_bounded() -> None:
    packed = {"content-encoding": "gzip"}
    assert inflate(gzip.compress(b"x" * 100), packed, 100) == b"x" * 100
    assert inflate(b"plain", {}, 100) == b"plain"
    with pytest.raises(ValueError, match="larger than 100 bytes"):
        inflate(gzip.compress(b"x" * 10_000_000), packed, 100)
    with pytest.raises(ValueError, match="cut"):
        inflate(gzip.compress(b"x" * 100)[:-4], packed, 100)
    with pytest.raises(ValueError, match="cannot be unpacked"):
        inflate(b"plain", packed, 100)
    with pytest.raises(ValueError, match="packed as br"):
        inflate(b"plain", {"content-encoding": "br"}, 100)


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("", "https://api.cloud.test/v1"),
        ("https://private.test:8443", "https://private.test:8443/v1"),
        ("https://private.test/", "https://private.test/v1"),
        ("http://127.0.0.1:81", "http://127.0.0.1:81/v1"),
        ("http://[::1]:81", "http://[::1]:81/v1"),
        ("http://localhost:81", "http://localhost:81/v1"),
    ],
)
def test_an_endpoint_replaces_the_host_alone(endpoint: str, address: str) -> None:
    assert base_url("https://api.cloud.test/v1/", endpoint) == address


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://api.cloud.test",
        "http://10.0.0.1",
        "http://127.0.0.1.evil.test",
        "ftp://127.0.0.1",
        "api.cloud.test",
        "https://",
        "https://key@host",
        "https://host/path",
        "https://host?x=1",
        "https://host#x",
        "https://host:port",
        "https://[::1",
        "http://2130706433",
        "http://0.0.0.0",
    ],
)
def test_other_endpoints_are_refused(endpoint: str) -> None:
    with pytest.raises(BackendError, match="endpoint"):
        base_url("https://api.cloud.test/v1", endpoint)


def test_a_part_of_a_path_stays_one() -> None:
    assert segment("i-1/../keys?x#y") == "i-1%2F..%2Fkeys%3Fx%23y"
    for text in ("", ".", ".."):
        with pytest.raises(BackendError):
            segment(text)
