"""Catalogs: what is shipped is sound, what is downloaded is verified, a cache of others is not believed.

The published list comes over a `fetch` that is passed in.
"""

from __future__ import annotations

import io
import os
import threading
import zipfile
from collections.abc import Callable, Iterable
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from backends.aws.instance_types import type_of
from backends.aws.snapshot_catalog import mended
from backends.catalog.cache import LARGEST, Cache, Spoiled, cache_of
from backends.catalog.gpuhunt import download, published
from backends.catalog.gpus import NVIDIA, gpu_memory, gpu_name
from backends.catalog.layers import FRESH, layers_of, live_file, published_file, shipped
from backends.catalog.offers import Layers, dollars, offers
from backends.catalog.refresh import DAY, HOUR, keep_regions, refresh_published
from backends.errors import BackendError, TryLater
from reconciler.engine.catalog import Later, catalog_of, offers_of
from schemas.catalog import CATALOG_VERSION, Catalog, CatalogRegion, CatalogType, LiveRegion, flaw
from schemas.desired import BackendConfig, Desired
from schemas.offer import Offer
from schemas.pool import Pool
from schemas.resources import GpuNeed, Need, Span, Where

AWS = BackendConfig(name="aws", type="aws")
ALL = Where(spot="auto")
NOW = 1_800_000_000
GB = 1024


@pytest.fixture(scope="module")
def layers() -> Layers:
    return Layers(shipped=shipped("aws"))


@pytest.fixture(scope="module")
def every(layers: Layers) -> list[Offer]:
    return list(offers(AWS, layers, Need(), ALL))


# ---------------------------------------------------------------- what is shipped


def test_the_shipped_catalog_is_sound_and_says_where_it_is_from(layers: Layers) -> None:
    catalog = layers.shipped
    assert flaw(catalog) == ""
    assert {(source.name, source.licence) for source in catalog.sources} == {
        ("moto", "Apache-2.0"), ("apache-libcloud", "Apache-2.0"),
    }  # fmt: skip
    assert all(source.version and source.url for source in catalog.sources)
    assert len(catalog.types) > 1000
    assert len(catalog.regions) >= 28


def test_every_offer_obeys_the_laws(every: list[Offer]) -> None:
    assert len(every) > 40_000
    assert len({(one.region, one.zone, one.instance_type, one.spot) for one in every}) == len(every)
    for one in every:
        assert one.price is None or 0 < one.price < 500
        assert one.resources.cpus > 0
        assert one.resources.memory > 0
        assert one.resources.cpu_arch in ("x86", "arm")
        assert (one.price is None) == (not one.source)
        assert one.at_most == (one.spot and one.price is not None)
        gpu = one.resources.gpu
        assert gpu is None or (gpu.count > 0 and gpu.memory >= 8 * GB and gpu.compute_capability >= 50), one


@pytest.mark.parametrize(
    ("name", "count", "gpu", "memory", "capability"),
    [
        ("p4d.24xlarge", 8, "A100", 40, 80),
        ("p4de.24xlarge", 8, "A100", 80, 80),
        ("g5.xlarge", 1, "A10G", 24, 86),
        ("p5.48xlarge", 8, "H100", 80, 90),
        ("g4dn.12xlarge", 4, "T4", 16, 75),
        ("g6.xlarge", 1, "L4", 24, 89),
        ("g6e.48xlarge", 8, "L40S", 48, 89),
        ("p5en.48xlarge", 8, "H200", 141, 90),
        ("g5g.xlarge", 1, "T4G", 16, 75),
        ("p6-b200.48xlarge", 8, "B200", 180, 100),
    ],
)
def test_known_machines(layers: Layers, name: str, count: int, gpu: str, memory: int, capability: int) -> None:
    found = next(iter(offers(AWS, layers, Need(), replace(ALL, instance_types=(name,)))))
    has = found.resources.gpu
    assert has is not None
    assert (has.count, has.name, has.memory, has.compute_capability) == (count, gpu, memory * GB, capability)
    assert has.vendor == "nvidia"


@pytest.mark.parametrize(
    ("name", "price"),  # AWS's own, of us-east-1: none may be off by more than a cent or half a percent
    [
        ("m5.large", "0.096"),
        ("m5.xlarge", "0.192"),
        ("c5.9xlarge", "1.53"),
        ("g4dn.xlarge", "0.526"),
        ("g5.xlarge", "1.006"),
        ("g5.4xlarge", "1.624"),
        ("g5.12xlarge", "5.672"),
        ("g5.48xlarge", "16.288"),
        ("g6.12xlarge", "4.6016"),
        ("g6e.48xlarge", "30.13118"),
        ("p4d.24xlarge", "32.7726"),
        ("t3.micro", "0.0104"),
    ],
)
def test_known_prices_although_the_list_had_the_wrong_row(layers: Layers, name: str, price: str) -> None:
    where = Where(instance_types=(name,), regions=("us-east-1",))
    [found] = offers(AWS, layers, Need(), where)
    assert found.price is not None
    assert abs(found.price - Decimal(price)) <= max(Decimal("0.01"), Decimal(price) / 200)


def test_what_nothing_of_ours_runs_on_is_left_out(layers: Layers) -> None:
    names = {kind.name for kind in layers.shipped.types}
    assert not {name for name in names if name.startswith(("mac", "g6f.", "t1.", "m1."))}
    assert type_of({"InstanceType": "mac2.metal", "ProcessorInfo": {"SupportedArchitectures": ["arm64_mac"]}}) is None


def test_rows_of_a_reservation_or_of_dedicated_machines_are_put_right() -> None:
    """A made-up family: true prices 1, 2, 4 in `a` and a tenth more in `b`; every third row is 0 or 7 % too high."""
    listed = {
        "f.s": {"a": 1.0, "b": 1.177}, "f.m": {"a": 2.0, "b": 2.2}, "f.l": {"a": 4.0, "b": 4.4},
        "f.xl": {"a": 0.0, "b": 8.8},
        "alone.s": {"a": 3.0, "b": 0.0},
    }  # fmt: skip
    names = list(listed)
    known, derived = mended(listed, {"a": names, "b": names})
    assert known["f.s"] == {"a": 1.0, "b": pytest.approx(1.1)}
    assert known["f.xl"] == {"a": pytest.approx(8.0), "b": 8.8}
    assert known["alone.s"] == {"a": 3.0}  # nothing tells what it costs elsewhere: unknown, not guessed
    assert derived == {("f.s", "b"), ("f.xl", "a")}


@pytest.mark.parametrize(
    ("told", "name", "mib", "memory"),
    [
        ("A10G", "A10G", 22888, 24 * GB),
        ("T4g", "T4G", 16384, 16 * GB),
        ("H200", "H200", 144384, 141 * GB),
        ("RTX PRO Server 6000", "RTXPRO6000", 98304, 96 * GB),
        ("A100", "A100", 81920, 80 * GB),
        ("B200", "B200", 183359, 180 * GB),
        ("New One", "NEWONE", 12345, 12345),
    ],
)
def test_gpus_have_the_names_and_sizes_that_people_ask_for(told: str, name: str, mib: int, memory: int) -> None:
    assert gpu_name(told) == name
    assert gpu_memory(name, mib) == memory
    assert all(name == gpu_name(name) for name in NVIDIA)


# ---------------------------------------------------------------- questions


def test_a_question_leaves_out_nothing_that_fits(every: list[Offer], layers: Layers) -> None:
    need = Need(gpu=GpuNeed(names=("a100", "h100"), count=Span(min=1)))
    where = Where(spot="spot", regions=("us-east-1", "eu-west-1"))
    expected = [
        one for one in every
        if one.spot and one.region in where.regions and one.resources.gpu and one.resources.gpu.name in ("A100", "H100")
    ]  # fmt: skip
    assert expected
    assert list(offers(AWS, layers, need, where)) == expected


def test_zones_are_named_where_they_are_asked_for(layers: Layers) -> None:
    where = Where(spot="on-demand", instance_types=("g5.xlarge",), zones=("us-east-1a", "mars-1a"))
    assert [(one.region, one.zone) for one in offers(AWS, layers, Need(), where)] == [("us-east-1", "us-east-1a")]
    both = list(offers_of(AWS, layers, need=Need(), where=replace(where, regions=("us-east-1",))))
    assert [one.zone for one in both] == ["", "us-east-1a"]


def test_the_documents_name_regions_backends_and_zones(tmp_path: Path) -> None:
    config = replace(AWS, name="ours", regions=("eu-west-1",))
    pool = Pool(name="p", where=Where(zones=("eu-west-1b",)))
    found = catalog_of(Desired(backends=(config,), pools=(pool,)), {"XDG_CACHE_HOME": str(tmp_path)}, now=NOW)
    assert {(one.backend, one.region, one.zone) for one in found} == {
        ("ours", "eu-west-1", ""), ("ours", "eu-west-1", "eu-west-1b"),
    }  # fmt: skip
    assert catalog_of(Desired(backends=(BackendConfig(name="local", type="local"),)), {}, now=NOW) == ()


def test_offers_are_made_when_somebody_looks_and_once() -> None:
    made: list[int] = []

    def make() -> Iterable[Offer]:
        made.append(1)
        return ()

    later = Later(make)
    assert made == []
    assert (len(later), list(later), made) == (0, [], [1])


def test_prices_have_no_exponents() -> None:
    assert [str(dollars(micro)) for micro in (1, 10_000_000, 1_006_000, 500_000_000)] == [
        "0.000001", "10", "1.006", "500",
    ]  # fmt: skip


# ---------------------------------------------------------------- gpuhunt's list

HEAD = "instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot,disk_size,gpu_vendor,flags,cpu_arch"


def a_list(*rows: str, filler: int = 120, factor: float = 1.0) -> bytes:
    more = [f"x{n}.large,us-east-1,{factor},2,8.0,0,,,False,,,,x86" for n in range(filler)]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as whole:
        whole.writestr("aws.csv", "\n".join([HEAD, *rows, *more]))
    return packed.getvalue()


G5 = "g5.xlarge,us-east-1,1.5,4,16.0,1,A10G,24.0,False,,nvidia,,x86"
G5_SPOT = "g5.xlarge,us-east-1,0.4,4,16.0,1,A10G,24.0,True,,nvidia,,x86"


class Web:
    """Answers by the end of the address; `None` is a network that fails."""

    def __init__(self, **answers: bytes | None) -> None:
        self.answers, self.asked = answers, []

    asked: list[str]

    def __call__(self, url: str, most: int) -> bytes:
        self.asked.append(url)
        answer = self.answers["zip" if url.endswith(".zip") else "version"]
        if answer is None:
            raise TryLater(f"{url}: no route")
        return answer


def at_home(tmp_path: Path) -> Cache:
    return Cache(folder=tmp_path / "dstack")


def refreshed(store: Cache, web: Web, *, now: int = NOW, force: bool = True) -> str:
    return refresh_published("aws", store, {"DSTACK_CATALOG_URL": "http://mirror"}, now=now, force=force, fetch=web)


def test_a_published_list_lies_over_the_shipped_one(tmp_path: Path) -> None:
    store = at_home(tmp_path)
    assert refreshed(store, Web(version=b"20261020-7\n", zip=a_list(G5, G5_SPOT))) == ""
    known = layers_of(AWS, store, now=NOW)
    assert known.warnings == ()
    where = Where(spot="auto", instance_types=("g5.xlarge",), regions=("us-east-1",))
    found = {one.spot: one for one in offers(AWS, known, Need(), where)}
    assert [(one.price, one.source, one.at_most) for one in (found[False], found[True])] == [
        (Decimal("1.5"), "gpuhunt", False), (Decimal("0.4"), "gpuhunt", False),
    ]  # fmt: skip
    assert found[True].priced_at == 1_792_454_400  # the day of its edition
    assert found[False].resources.memory == 16 * GB
    elsewhere = replace(where, regions=("us-west-2",), spot="on-demand")
    assert next(iter(offers(AWS, known, Need(), elsewhere))).source.startswith("snapshot")


@pytest.mark.parametrize(
    ("version", "data", "why"),
    [
        (b"<html>", a_list(G5), "does not say its version"),
        (b"20261020-7", b"PK no zip", "cannot be unpacked"),
        (b"20261020-7", a_list(G5, filler=3), "it has 4 offers"),
        (b"20261020-7", a_list("g5.xlarge,us-east-1,-1,4,16.0,1,A10G,24.0,False,,nvidia,,x86"), "another shape"),
        (b"20261020-7", a_list("g5.xlarge,us-east-1,nan,4,16.0,1,A10G,24.0,False,,nvidia,,x86"), "another shape"),
        (b"20261020-7", a_list("g5.xlarge,us-east-1,1,many,16.0,1,A10G,24.0,False,,nvidia,,x86"), "another shape"),
        (None, None, "no route"),
        (b"20261020-7", None, "no route"),
    ],
)
def test_what_is_not_to_be_believed_replaces_nothing(
    version: bytes | None, data: bytes | None, why: str, tmp_path: Path
) -> None:
    store = at_home(tmp_path)
    assert refreshed(store, Web(version=b"20261019-1", zip=a_list(G5))) == ""
    before = (store.folder / published_file("aws")).read_bytes()
    assert why in refreshed(store, Web(version=version, zip=data))
    assert (store.folder / published_file("aws")).read_bytes() == before


def test_a_list_in_another_currency_is_not_used(layers: Layers, tmp_path: Path) -> None:
    region = layers.shipped.regions["us-east-1"]
    names = [layers.shipped.types[at].name for at in region.types[:60]]
    rows = [f"{name},us-east-1,900.0,2,8.0,0,,,False,,,,x86" for name in names]
    assert "times those that are shipped" in refreshed(at_home(tmp_path), Web(version=b"20261020-7", zip=a_list(*rows)))


def test_asked_at_most_daily_and_an_hour_after_a_failure(tmp_path: Path) -> None:
    store, web = at_home(tmp_path), Web(version=None)
    assert "no route" in refreshed(store, web, force=False)
    assert refreshed(store, web, force=False, now=NOW + HOUR - 1) == ""
    assert len(web.asked) == 1
    web.answers = {"version": b"20261020-7", "zip": a_list(G5)}
    assert refreshed(store, web, force=False, now=NOW + HOUR) == ""
    assert refreshed(store, web, force=False, now=NOW + HOUR + DAY - 1) == ""
    assert len(web.asked) == 3
    assert refreshed(store, web, force=False, now=NOW + HOUR + DAY) == ""
    assert web.asked[3:] == ["http://mirror/aws/version"]  # the same edition is not downloaded again
    off = refresh_published("aws", store, {"DSTACK_CATALOG_URL": "off"}, now=NOW + 9 * DAY, force=True, fetch=web)
    assert (off, len(web.asked)) == ("DSTACK_CATALOG_URL is off", 4)


def test_a_file_address_is_never_opened(tmp_path: Path) -> None:
    known = shipped("aws")
    with pytest.raises(BackendError, match="no http"):
        published("aws", base=f"file://{tmp_path}", known=None, shipped=known, now=NOW, fetch=download)


def test_a_real_server_is_asked_and_never_for_more_than_allowed(tmp_path: Path) -> None:
    class Mirror(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = {"/v/aws/version": b"20261020-7", "/v/aws/20261020-7/catalog.zip": a_list(G5)}.get(self.path)
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/v"
        store = at_home(tmp_path)
        assert refresh_published("aws", store, {"DSTACK_CATALOG_URL": base}, now=NOW) == ""
        assert layers_of(AWS, store, now=NOW).published is not None
        with pytest.raises(BackendError, match="larger than 3 bytes"):
            download(f"{base}/aws/version", 3)
        with pytest.raises(TryLater, match="Not Found"):
            download(f"{base}/gcp/version", 100)
        server.shutdown()


# ---------------------------------------------------------------- the regions' own word


def told(**changes: object) -> LiveRegion:
    live = LiveRegion(
        at=NOW,
        zones={"g5.xlarge": ("us-east-1a", "us-east-1b"), "zz9.large": ("us-east-1a",)},
        spot={"g5.xlarge": {"us-east-1a": 410_000, "us-east-1b": 390_000}},
        types=(CatalogType(name="zz9.large", cpus=2, memory=8 * GB),),
    )
    return replace(live, **changes)


def test_a_region_says_what_it_sells_and_what_spot_costs_by_zone(tmp_path: Path) -> None:
    store = at_home(tmp_path)
    assert keep_regions(AWS, store, {"us-east-1": told()}) == ""
    where = Where(spot="auto", regions=("us-east-1",))
    found = list(offers(AWS, layers_of(AWS, store, now=NOW + 60), Need(), where))
    assert {one.instance_type for one in found} == {"g5.xlarge", "zz9.large"}
    spot = [(one.zone, one.price, one.source, one.priced_at, one.at_most) for one in found if one.spot]
    assert spot == [
        ("us-east-1a", Decimal("0.41"), "AWS", NOW, False), ("us-east-1b", Decimal("0.39"), "AWS", NOW, False),
    ]  # fmt: skip
    zoned = list(offers(AWS, layers_of(AWS, store, now=NOW), Need(), replace(where, zones=("us-east-1b",))))
    assert [(one.instance_type, one.spot) for one in zoned] == [("g5.xlarge", False), ("g5.xlarge", True)]


def test_without_leave_to_see_spot_prices_they_are_bounded(tmp_path: Path) -> None:
    store = at_home(tmp_path)
    keep_regions(AWS, store, {"us-east-1": told(spot={}, spot_error="UnauthorizedOperation")})
    where = Where(spot="spot", regions=("us-east-1",), instance_types=("g5.xlarge",))
    [found] = offers(AWS, layers_of(AWS, store, now=NOW), Need(), where)
    assert (found.price, found.at_most) == (Decimal("1.006"), True)


def test_a_region_counts_for_a_day_and_for_its_own_login(tmp_path: Path) -> None:
    store = at_home(tmp_path)
    keep_regions(AWS, store, {"us-east-1": told()})
    keep_regions(AWS, store, {"eu-west-1": told()})
    assert sorted(layers_of(AWS, store, now=NOW).live) == ["eu-west-1", "us-east-1"]
    assert layers_of(AWS, store, now=NOW + FRESH).live == {}
    other = replace(AWS, options={"creds": {"profile": "other"}})
    assert layers_of(other, store, now=NOW).live == {}


# ---------------------------------------------------------------- the cache


def test_the_folder_is_the_users_own(tmp_path: Path) -> None:
    assert cache_of({"XDG_CACHE_HOME": "/x"}).folder == Path("/x/dstack")
    assert cache_of({"XDG_CACHE_HOME": "relative", "HOME": "/h"}).folder == Path("/h/.cache/dstack")
    store = at_home(tmp_path)
    store.write("a.json", {"a": 1})
    assert oct(store.folder.stat().st_mode & 0o777) == "0o700"
    assert oct((store.folder / "a.json").stat().st_mode & 0o777) == "0o600"
    assert [one.name for one in store.folder.iterdir()] == ["a.json"]


def spoil(file: Path) -> dict[str, Callable[[], object]]:
    def link() -> None:
        file.rename(file.with_suffix(".elsewhere"))
        file.symlink_to(file.with_suffix(".elsewhere"))

    def fifo() -> None:
        file.unlink()
        os.mkfifo(file)

    def large() -> None:
        with file.open("wb") as opened:
            opened.truncate(LARGEST + 1)

    return {
        "cut off": lambda: file.write_bytes(file.read_bytes()[:1000]),
        "not JSON": lambda: file.write_bytes(b"\x00\xff"),
        "of another shape": lambda: file.write_bytes(b'{"version": 1}'),
        "deep": lambda: file.write_bytes(b"[" * 100_000),
        "writable by others": lambda: file.chmod(0o666),
        "a link": link,
        "a pipe": fifo,
        "too large": large,
        "of another user": lambda: os.chown(file, 12345, -1),
        "of a folder of another user": lambda: os.chown(file.parent, 12345, -1),
        "of a folder that others may write to": lambda: file.parent.chmod(0o777),
    }


@pytest.mark.parametrize("how", list(spoil(Path("x"))))
def test_a_file_that_is_spoiled_is_left_out_with_a_word(how: str, tmp_path: Path) -> None:
    if "another user" in how and os.geteuid():
        pytest.skip("only root gives files away")
    store = at_home(tmp_path)
    refreshed(store, Web(version=b"20261020-7", zip=a_list(G5)))
    spoil(store.folder / published_file("aws"))[how]()
    known = layers_of(AWS, store, now=NOW)
    assert known.published is None
    assert len(known.warnings) == 1
    assert "left out" in known.warnings[0]
    assert len(list(offers(AWS, known, Need(), ALL))) > 40_000


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"types": ()},
        {"regions": {}},
        {"types": (CatalogType(name="x", cpus=0, memory=1),)},
        {"types": (CatalogType(name="x", cpus=1, memory=1, gpu="A100"),)},
        {"types": (CatalogType(name="x", cpus=1, memory=1, gpu="A100", gpu_count=1),)},
        {"regions": {"a": CatalogRegion(types=(0,), on_demand=())}},
        {"regions": {"a": CatalogRegion(types=(7,), on_demand=(1,))}},
        {"regions": {"a": CatalogRegion(types=(0, 0), on_demand=(1, 1))}},
        {"regions": {"a": CatalogRegion(types=(0,), on_demand=(-1,))}},
        {"regions": {"a": CatalogRegion(types=(0,), on_demand=(1,), spot=(1, 2))}},
    ],
)
def test_a_catalog_with_a_flaw_is_not_believed(change: dict[str, object]) -> None:
    sound = Catalog(
        version=CATALOG_VERSION,
        name="n",
        provider="aws",
        priced_at=1,
        types=(CatalogType(name="x", cpus=1, memory=1),),
        regions={"a": CatalogRegion(types=(0,), on_demand=(1,))},
    )
    assert flaw(sound) == ""
    assert flaw(replace(sound, **change))


def test_a_link_in_place_of_the_folder_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "dstack").symlink_to(tmp_path / "theirs")
    store = at_home(tmp_path)
    with pytest.raises(OSError, match="no folder of our own"):
        store.write("a.json", {})
    with pytest.raises(Spoiled):
        store.read("a.json", dict)
    assert "no folder of our own" in refreshed(store, Web(version=b"20261020-7", zip=a_list(G5)))
    assert list((tmp_path / "theirs").iterdir()) == []


def test_a_write_is_whole_or_not_there(tmp_path: Path) -> None:
    store = at_home(tmp_path)
    store.write("a.json", {"a": 1})
    with pytest.raises(TypeError):
        store.write("a.json", object())
    assert store.read("a.json", dict) == {"a": 1}
    assert [one.name for one in store.folder.iterdir()] == ["a.json"]
    assert msgspec.json.decode((store.folder / "a.json").read_bytes()) == {"a": 1}
    assert live_file(AWS) != live_file(replace(AWS, name="b"))
