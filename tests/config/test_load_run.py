"""`dstack run -f`: the flags on top of a file, its profile and its pool."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from reconciler.config.load import Documents, Invalid, load
from reconciler.config.load_run import RunFlags, load_run, read_run_file, sealed_env
from reconciler.config.options import BadOption, parse_duration, resolve_need
from schemas.profile import Retry
from schemas.resources import GpuNeed, Need, Span
from schemas.run import RunSpec

MAIN = """\
pools:
  - {name: gpu, default: true, max_price: 9, idle_duration: 20m}
  - {name: small}
profiles:
  - {name: cheap, max_price: 2, spot_policy: auto, regions: [eu], max_duration: 1h}
secrets: {TOKEN: {env: TOKEN}}
"""


@pytest.fixture
def documents(tmp_path: Path) -> Documents:
    (tmp_path / ".dstack").mkdir()
    (tmp_path / ".dstack" / "main.yml").write_text(MAIN)
    return load(tmp_path, home=tmp_path / "home")


def run(documents: Documents, text: str, *args: str, **flags: Any) -> RunSpec:
    file = documents.root / "run.dstack.yml"
    file.write_text(text)
    return load_run(file, documents=documents, desired=documents.desired, flags=RunFlags(**flags), args=args)


TASK = "type: task\ncommands: ['echo ${{ run.args }}']\n"


def test_a_file_alone(documents: Documents) -> None:
    spec = run(documents, TASK, "--epochs", "3")
    assert (spec.name, spec.pool, spec.args) == ("", "gpu", ("--epochs", "3"))
    assert (spec.where.max_price, spec.idle_duration) == (Decimal(9), 1200)


@pytest.mark.parametrize(
    ("text", "flags", "price", "source"),
    [
        (TASK, {}, Decimal(9), "pool gpu"),
        (TASK + "profile: cheap", {}, Decimal(2), "profile cheap"),
        (TASK, {"profile": "cheap"}, Decimal(2), "profile cheap"),
        (TASK + "max_price: 1\nprofile: cheap", {}, Decimal(1), "run"),
        (TASK + "max_price: 1\nprofile: cheap", {"max_price": "0.5"}, Decimal("0.5"), "flag"),
    ],
)
def test_flag_beats_run_beats_profile_beats_pool(
    documents: Documents, text: str, flags: dict[str, Any], price: Decimal, source: str
) -> None:
    spec = run(documents, text, **flags)
    assert spec.where.max_price == price
    assert dict(spec.sources)["max_price"] == source


def test_every_flag(documents: Documents) -> None:
    spec = run(
        documents,
        TASK + "resources: {cpu: 4.., memory: 8GB..}\nenv: {A: file, B: file, C: }",
        name="mine",
        backends=("local",),
        regions=("eu",),
        instance_types=("t",),
        pool="small",
        reuse=True,
        idle_duration="off",
        instance="small-1",
        spot="spot",
        retry_duration="2h",
        env=("A=secret", "D", "B"),
        gpu="A100:2",
        cpu="8..",
        disk="10GB..",
        max_duration="off",
        ports=("80:8000",),
    )
    assert (spec.name, spec.pool, spec.reuse_only, spec.instance_name) == ("mine", "small", True, "small-1")
    assert spec.where.backends == ("local",)
    assert (spec.where.regions, spec.where.instance_types, spec.where.spot) == (("eu",), ("t",), "spot")
    assert (spec.idle_duration, spec.destroy_after, spec.max_duration) == (None, False, None)
    assert spec.retry == Retry(no_capacity=True, interruption=True, error=True, duration=7200)
    assert spec.need == Need(
        cpu=Span(min=8),
        memory=Span(min=8192),
        disk=Span(min=10240),
        gpu=GpuNeed(names=("a100",), count=Span(min=2, max=2)),
    )
    assert spec.ports == ("80:8000",)
    assert dict(spec.env) == {"B": None, "C": None, "D": None}


def test_values_of_flags_never_enter_the_run(documents: Documents) -> None:
    flags = RunFlags(env=("A=canary=1", "B"))
    assert "canary" not in repr(run(documents, TASK, env=flags.env))
    assert sealed_env(flags) == {"A": "canary=1"}


def test_no_retry_wins(documents: Documents) -> None:
    assert run(documents, TASK + "retry: true", retry=False).retry == Retry()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"gpu": "A100::"}, "--gpu: `A100::` has an empty part"),
        ({"cpu": "many"}, "--cpu: the text `many` is not a count"),
        ({"pool": "gpuu"}, "--pool: `gpuu` is not a pool of this project, did you mean `gpu`?"),
        ({"profile": "chap"}, "--profile: `chap` is not a profile of this project, did you mean `cheap`?"),
        ({"idle_duration": "soon"}, "--idle-duration: the text `soon` is not a duration"),
        ({"max_price": "-1"}, "--max-price: "),
        ({"name": "Big"}, "--name: "),
        ({"spot": "spott"}, "--spot-policy: "),
        ({"env": ("1=2",)}, "--env: `1` cannot name an environment variable"),
        ({"ports": ("x",)}, "--port: "),
    ],
)
def test_wrong_flags_are_named(documents: Documents, flags: dict[str, Any], said: str) -> None:
    with pytest.raises(BadOption) as caught:
        run(documents, TASK, **flags)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "run.dstack.yml:1:1: the file is empty: a run configuration has a `type`"),
        ("type: task", "run.dstack.yml:1:1: commands: `commands` or `image` is missing: nothing would run"),
        (
            "type: task\ncommands: [x]\npool_name: gpuu",
            "run.dstack.yml:3:12: pool_name: `gpuu` is not a pool of this project, did you mean `gpu`?",
        ),
        (
            "type: task\ncommands: [x]\nprofile: chep",
            "run.dstack.yml:3:10: profile: `chep` is not a profile of this project, did you mean `cheap`?",
        ),
        (
            "type: task\ncommands: ['${{ secrets.TOKN }}']",
            "run.dstack.yml:2:12: commands[0]: unknown secret `TOKN`, did you mean `TOKEN`?",
        ),
    ],
)
def test_wrong_files_are_located(documents: Documents, text: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        run(documents, text)
    assert [str(problem) for problem in caught.value.problems] == [said]


def test_a_file_outside_of_the_project(documents: Documents, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("other") / "x.yml"
    file.write_text(TASK + "user: x")
    spec, warnings = read_run_file(file, documents=documents, desired=documents.desired, flags=RunFlags(), args=())
    why = "`user` needs an `image`: a process is run by whoever logs in to its host"
    assert spec.unsupported == (why,)
    assert warnings == (f"{file}:1:1: {why}",)


def test_options_of_pool_add() -> None:
    assert resolve_need(gpu="24GB", memory="0.1GB..", shared_memory="1GB") == Need(
        memory=Span(min=102), shm=1024, gpu=GpuNeed(memory=Span(min=24576, max=24576), count=Span(min=1, max=1))
    )
    with pytest.raises(BadOption, match="--shared-memory: "):
        resolve_need(shared_memory="much")
    assert parse_duration("72h") == 259200
    assert parse_duration("off") is None
    with pytest.raises(BadOption, match="--deadline: "):
        parse_duration("soon", option="--deadline")


@pytest.mark.parametrize(
    ("more", "image", "engine"),
    [
        ("commands: [a]\n", "", False),
        ("image: run:1\ncommands: [a]\n", "run:1", False),
        ("image: run:1\n", "run:1", True),
        ("image: run:1\nentrypoint: python\ncommands: [a]\n", "run:1", True),
        ("image: run:1\nuser: ann\ncommands: [a]\n", "run:1", True),
        ("image: run:1\nprivileged: true\ncommands: [a]\n", "run:1", True),
        ("image: run:1\nvolumes: ['/a:/b']\ncommands: [a]\n", "run:1", True),
        ("image: run:1\nworking_dir: /srv\ncommands: [a]\n", "run:1", True),
    ],
)
def test_what_a_run_asks_of_containers(documents: Documents, more: str, image: str, engine: bool) -> None:
    need = run(documents, f"type: task\nname: t\n{more}").need
    assert (need.container, need.image, need.engine) == (bool(image), image, engine)
