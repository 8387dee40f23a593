"""A host puts its job's result into the bucket by itself: found when the host is gone, and no secret stays anywhere."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace as change
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from msgspec.structs import replace

from reconciler.engine.job_spec import AROUND
from reconciler.engine.recover_results import Recovered, recover
from reconciler.engine.tick import tick
from reconciler.hosts.artifacts import choose, pattern_of
from reconciler.hosts.uploads import Delivered, Deliveries
from reconciler.store.blobs.folder import BlobError
from reconciler.store.objects.base import StoredObject
from reconciler.store.objects.open import open_bucket
from schemas.delivery import Delivery
from schemas.instance import JobReport
from schemas.location import Bucket, location
from tests.cli.test_state_commands import PROJECT, Team, fresh, team
from tests.doubles.buckets.buckets import AZURE_KEY, Server, boto
from tests.store.test_beside import Dated
from tests.worlds.world import Site, apply, apply_ask, desired, task, ticks

FILES = ["./a.csv", "./out/x.bin", "./out/deep/y.bin", "./a+b.txt", "./b.csv", "./log[1].txt", "./deep/a.csv"]
GLOBS = [
    "*.csv", "out", "out/**", "**/*.bin", "**", "a+b.txt", "out/*.bin", "[ab].csv", "[!a].csv", "**/a.csv", "../x",
    "deep/",
]  # fmt: skip
SLOW = """\
type: task
name: slow
commands:
  - echo working
  - mkdir -p out && echo 42 > out/answer.txt && echo no > other.txt
  - while [ ! -f {gate} ]; do sleep 0.1; done
  - echo finished
artifacts: [out/**]
"""


@pytest.mark.parametrize("glob", GLOBS)
def test_a_host_chooses_the_same_files(glob: str) -> None:
    wanted, _ = choose(b"\0".join(path.encode() for path in FILES), [glob])
    found = subprocess.run(
        ["grep", "-E", "-e", pattern_of(glob)],
        input="\n".join(FILES) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert sorted(found.stdout.split()) == sorted(path.decode() for path in wanted)


def until(true: Callable[[], object], *, seconds: float = 240) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.1)


@pytest.fixture
def moto(server_of: Callable[[str], Server]) -> Server:
    return server_of("moto")


def objects(server: Server, url: str) -> dict[str, bytes]:
    bucket = url.split("/")[2]
    listed = boto(server).list_objects_v2(Bucket=bucket).get("Contents", [])
    return {one["Key"]: boto(server).get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in listed}


@pytest.fixture
def running(tmp_path: Path, moto: Server) -> Iterator[tuple[Team, str, Path]]:
    """A run that goes on until its gate is there."""
    project, url, gate = team(tmp_path, moto), fresh(moto), tmp_path / "gate"
    project.keep_in(url)
    (project.root / ".dstack/runs/hello.yml").unlink()
    project.write(".dstack/runs/slow.yml", SLOW.format(gate=gate))
    done = project.at("apply", "-y")
    assert done.code == 0, done.said
    yield project, url, gate
    gate.touch()
    project.at("destroy", "--confirm", "project")


def vanish(host: Path) -> None:
    """At once: what still writes there, writes elsewhere from now on."""
    host.rename(host.parent.parent / "gone")


def test_a_result_is_found_where_its_host_put_it(running: tuple[Team, str, Path], moto: Server) -> None:
    """The machine goes before anybody came for the result: it is collected from the bucket, not lost."""
    project, url, gate = running
    gate.touch()
    until(lambda: any(key.endswith("/artifacts") for key in objects(moto, url)))
    hosts = list((project.root.parent / "home/state").rglob("instance.json"))
    assert len(hosts) == 1
    vanish(hosts[0].parent)
    done = project.at("apply", "-y")
    assert done.code == 0, done.said
    (run,) = json.loads(project.at("ps", "-a", "--json").out)
    assert (run["status"], run["reason"], run["exit_code"]) == ("done", "", 0)
    assert project.at("logs", "slow").out == "working\nfinished\n"
    assert project.at("artifacts", "slow").out == "1 file in slow-artifacts\n"
    assert (project.root / "slow-artifacts/out/answer.txt").read_text() == "42\n"


def test_without_what_the_host_put_it_is_lost(running: tuple[Team, str, Path], moto: Server) -> None:
    """The same, but the bucket has nothing: it is never guessed."""
    project, _, _ = running
    hosts = list((project.root.parent / "home/state").rglob("instance.json"))
    vanish(hosts[0].parent)
    assert project.at("apply", "-y").code in (0, 1)
    (run,) = json.loads(project.at("ps", "-a", "--json").out)
    assert run["status"] != "done"


def test_no_secret_is_anywhere(running: tuple[Team, str, Path], moto: Server) -> None:
    """Neither a credential nor a request: not in the process list, in an object, the state, a log; on the host only
    in files of its owner's, and only while the job runs.
    """
    project, url, gate = running
    secrets = (b"X-Amz-Signature", b"testsecret")
    home = project.root.parent / "home"
    holders = [path for path in home.rglob("*") if path.is_file() and any(one in path.read_bytes() for one in secrets)]
    assert {path.name for path in holders} == {"put-end", "put-log", "put-artifacts"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in holders)
    gate.touch()
    while not any(key.endswith("/artifacts") for key in objects(moto, url)):
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, check=True).stdout
        assert b"X-Amz-Signature" not in listed
    until(lambda: not list(home.rglob("put-*")))
    assert project.at("apply", "-y").code == 0
    for key, data in objects(moto, url).items():
        plain = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        plain = gzip.decompress(plain) if plain.startswith(b"\x1f\x8b") else plain
        assert not any(secret in plain for secret in secrets), key
    for path in (path for folder in (project.root, home) for path in folder.rglob("*") if path.is_file()):
        assert not any(secret in path.read_bytes() for secret in secrets), path


# ---------------------------------------------------------------- what a request lets do


def deliveries(server: Server, tmp_path: Path, prefix: str) -> Deliveries:
    where = location(server.state("first-bucket", prefix))
    assert isinstance(where, Bucket)
    return Deliveries(open_bucket(where, environ=server.environ), f"{PROJECT}/results", scratch=tmp_path)


def put(url: str, headers: tuple[tuple[str, str], ...], data: bytes) -> int:
    flags = [word for name, value in headers for word in ("-H", f"{name}: {value}")]
    done = subprocess.run(
        [
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-X",
            "PUT",
            "--data-binary",
            "@-",
            "-H",
            "Content-Type: application/octet-stream",
            *flags,
            url,
        ],
        input=data,
        capture_output=True,
        check=True,
        timeout=30,
    )
    return int(done.stdout)


@pytest.mark.parametrize("kind", ["moto", "seaweedfs", "azurite"])
def test_a_request_makes_that_object_once_and_no_other(
    server_of: Callable[[str], Server], tmp_path: Path, kind: str
) -> None:
    """What was put stays as it is for as long as the request holds. moto checks no signatures."""
    server = server_of(kind)
    made = deliveries(server, tmp_path, f"once-{time.time_ns()}")
    end, log, artifacts = made.requests("r1-0-1-0", seconds=3600)
    assert [one.part for one in (end, log, artifacts)] == ["end", "log", "artifacts"]
    assert not any(secret in end.url for secret in (AZURE_KEY, "testsecret"))
    if kind != "moto":
        assert put(end.url.replace("/end?", "/other?"), end.headers, b"x") == 403
        assert put(end.url.replace("first-bucket", "other-bucket"), end.headers, b"x") == 403
    if kind == "seaweedfs":
        assert put(end.url, (), b"x") == 403, "the condition is part of what is signed"
    assert put(end.url, end.headers, b"ended 3 exit 100 200 0\n" + b"0" * 400) in (200, 201)
    assert put(end.url, end.headers, b"ended 0 exit 100 200 0\n") in (403, 409, 412)
    found = made.result("r1-0-1-0")
    assert found is not None
    assert (found.end.exit_code, found.end.started_at, found.end.ended_at) == (3, 100, 200)
    assert made.result("r1-0-1-1") is None


@pytest.mark.parametrize("seconds", [None, 60, 10**9])
def test_a_request_holds_for_seven_days_at_most(moto: Server, tmp_path: Path, seconds: int | None) -> None:
    made = deliveries(moto, tmp_path, "x")
    time_given = 60 if seconds == 60 else 7 * 86400
    assert all(f"X-Amz-Expires={time_given}&" in one.url for one in made.requests("r1", seconds))


@pytest.mark.parametrize(
    ("kind", "lasts", "holds"), [("task", 3600, 3600 + 10 + AROUND), ("task", None, None), ("service", None, None)]
)
def test_requests_hold_as_long_as_the_job_may_run(
    tmp_path: Path, kind: str, lasts: int | None, holds: int | None
) -> None:
    """A service's too: its log, where its machine goes. Without an end they hold as long as a cloud lets them."""
    site = Site(scratch=tmp_path)
    asked: list[tuple[str, int | None]] = []

    def deliver(job: str, seconds: int | None) -> tuple[Delivery, ...]:
        asked.append((job, seconds))
        return ()

    ports = change(site.ports(), deliver=deliver)
    wanted = desired(runs=[task("a", type=kind, max_duration=lasts)])
    for _ in range(3):
        tick(ports, apply_ask(wanted))
        site.clock.at += 10
    assert [seconds for _, seconds in asked] == [holds]


@pytest.mark.parametrize("line", [b"", b"noise", b"ended x exit 1 2 0", b"ended 0 exit 1 2 0 \xff\xff"])
def test_what_is_no_end_is_no_result(moto: Server, tmp_path: Path, line: bytes) -> None:
    prefix = f"noise-{time.time_ns()}"
    where = location(moto.state("first-bucket", prefix))
    assert isinstance(where, Bucket)
    open_bucket(where, environ=moto.environ).put(f"{PROJECT}/results/r1/end", line)
    assert deliveries(moto, tmp_path, prefix).result("r1") is None


def test_google_signs_with_a_service_account(
    server_of: Callable[[str], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fake-gcs-server takes a signed request without looking at the signature."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    google = server_of("fake-gcs")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account", "client_email": "ci@test.iam.gserviceaccount.com", "private_key": key.decode(),
        "private_key_id": "1", "project_id": "test", "token_uri": "http://127.0.0.1:1/token",
    }  # fmt: skip
    file = tmp_path / "account.json"
    file.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    made = deliveries(google, tmp_path, f"signed-{time.time_ns()}")
    end, *_ = made.requests("r1", 3600)
    assert "x-goog-if-generation-match" in parse_qs(urlsplit(end.url).query)["X-Goog-SignedHeaders"][0].split(";")
    assert dict(end.headers) == {"x-goog-if-generation-match": "0"}, "makes it, and overwrites nothing"
    assert put(end.url, end.headers, b"ended 0 exit 1 2 0\n") == 200
    found = made.result("r1")
    assert found is not None
    assert found.end.exit_code == 0


@pytest.mark.parametrize("account", [None, "authorized_user"])
def test_who_cannot_sign_starts_jobs_all_the_same(
    server_of: Callable[[str], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, account: str | None
) -> None:
    """Once such a job never started: the error of the signing was not one of the bucket's."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    if account:
        person = {"type": account, "client_id": "a", "client_secret": "b", "refresh_token": "c"}
        (tmp_path / "person.json").write_text(json.dumps(person))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "person.json"))
    assert deliveries(server_of("fake-gcs"), tmp_path, "unsigned").requests("r1", 60) == ()


# ---------------------------------------------------------------- what a hostile host puts

LIMIT = 1 << 16


def tarred(name: str, data: bytes, **headers: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers=headers) as made:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        made.addfile(member, io.BytesIO(data))
    return file.getvalue()


GOOD = gzip.compress(tarred("a.txt", b"42"))
HOSTILE = {
    "not gzip": (b"noise", "could not be read"),
    "a broken stream": (GOOD[:10] + b"\xff" * 50, "could not be read"),
    "cut": (GOOD[:-20], "could not be read"),
    "a bomb": (gzip.compress(b"\0" * (LIMIT * 64)), "more than 65536 bytes"),
    "a tar with a bomb": (gzip.compress(tarred("a.txt", b"\0" * (LIMIT * 64))), "more than 65536 bytes"),
    "too large": (bytes(LIMIT + 1), "65537 bytes are more than 65536; see memory://bucket/p/results/r1/artifacts"),
    "a map that is no map": (gzip.compress(tarred("a", b"1", **{"GNU.sparse.map": "x,y"})), "could not be read"),
}


class Small(Dated):
    """Nobody asks for what is larger than he can hold."""

    def get(self, key: str) -> StoredObject | None:
        assert len(self.kept.get(key, (b"", 0))[0]) <= LIMIT
        return super().get(key)


def put_by_host(tmp_path: Path, **parts: bytes) -> Delivered | None:
    bucket: Any = Small()
    for part, data in parts.items():
        bucket.put(f"p/results/r1/{part}", data)
    return Deliveries(bucket, "p/results", scratch=tmp_path / "scratch", limit=LIMIT).result("r1")


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_artifacts_are_left_out_and_nothing_else(tmp_path: Path, kind: str) -> None:
    data, why = HOSTILE[kind]
    found = put_by_host(tmp_path, end=b"ended 3 exit 100 200 0\n", log=b"a log\n", artifacts=data)
    assert found is not None
    assert (found.end.exit_code, found.artifacts) == (3, None)
    assert found.log is not None
    assert found.log.read_bytes() == b"a log\n"
    assert any(why in note for note in found.notes), found.notes
    found.discard()
    assert list((tmp_path / "scratch").iterdir()) == [], "no temporary file stays"


def test_artifacts_of_a_good_host_are_taken(tmp_path: Path) -> None:
    found = put_by_host(tmp_path, end=b"ended 0 exit 100 200 0\n", artifacts=GOOD)
    assert found is not None
    assert found.artifacts is not None
    with tarfile.open(found.artifacts) as packed:
        assert packed.getnames() == ["a.txt"]
    assert (found.log, found.notes) == (None, ())
    assert list((tmp_path / "scratch").iterdir()) == [found.artifacts]


def test_a_log_or_an_end_that_is_too_large_is_not_fetched(tmp_path: Path) -> None:
    found = put_by_host(tmp_path, end=b"ended 0 exit 100 200 0\n", log=bytes(LIMIT + 1))
    assert found is not None
    assert found.log is None
    assert "log could not be fetched" in found.notes[0]
    assert put_by_host(tmp_path, end=b"ended 0 exit 100 200 0\n" + bytes(2 << 20)) is None


class Full:
    """Blobs on a disk that is full."""

    def put(self, data: bytes | Path) -> str:
        raise BlobError("no space left")


def test_one_result_stops_no_tick(tmp_path: Path) -> None:
    """Whatever the reading of one raises, the other one is collected; a person hears of it."""
    site = Site(scratch=tmp_path)
    apply(site, desired(runs=[task("evil"), task("good")]))
    ticks(site, 3)
    state = site.state
    state = replace(state, instances=tuple(replace(one, phase="terminated") for one in state.instances))
    evil, good = (job.id for attempt in state.attempts for job in attempt.jobs)
    asked: list[str] = []

    def delivered(job: str) -> Delivered:
        asked.append(job)
        if job == evil:
            raise RecursionError("of a kind that nobody\x1b[31m foresaw")
        log = tmp_path / "log"
        log.write_bytes(b"a log\n")
        return Delivered(end=JobReport(id=good, phase="ended", exit_code=0, ended_at=200), log=log, notes=("n",) * 20)

    known: dict[str, Recovered] = {}
    ports = change(site.ports(), delivered=delivered)
    for _ in range(2):
        after, warnings = recover(ports, state, known=known, now=site.clock.now())
        assert [job.status for attempt in after.attempts for job in attempt.jobs] == ["running", "done"]
        assert "RecursionError" in warnings[0]
        assert "\x1b" not in warnings[0]
        assert warnings[-1].endswith("and 12 more")
    assert asked == [evil, good], "each is asked for once a tick"
    full: Any = Full()
    after, warnings = recover(change(ports, blobs=full), state, known={}, now=site.clock.now())
    assert [job.status for attempt in after.attempts for job in attempt.jobs] == ["running", "done"]
    assert not (tmp_path / "log").exists()
