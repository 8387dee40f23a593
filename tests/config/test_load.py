"""Loading a whole project: what its documents mean, and what several files say together."""

from decimal import Decimal
from pathlib import Path

import pytest
from msgspec import json
from msgspec.structs import replace

from reconciler.config.compile.pool import backend_access, pool_access
from reconciler.config.identity import identity
from reconciler.config.load import Documents, Invalid, find_project, load
from reconciler.config.read import read_documents
from reconciler.config.version_pin import unmet_requirement
from reconciler.config.yaml.reader import parse_yaml
from schemas.access import Way, way_of
from schemas.backend_types import TYPES
from schemas.desired import COMPILER, BackendConfig, Desired
from schemas.pool import Pool
from schemas.profile import Retry
from schemas.resources import GpuNeed, Need, Span, Where

GOOD = Path(__file__).parent / "documents" / "good"
HOUR = 3600


def project(root: Path, **files: str) -> Path:
    """`main=` is `.dstack/main.yml`, `runs__a=` is `.dstack/runs/a.yml`."""
    (root / ".dstack" / "runs").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / ".dstack" / f"{name.replace('__', '/')}.yml").write_text(text)
    return root


def loaded(root: Path, **files: str) -> Documents:
    return load(project(root, **files), home=root / "home")


def problems(root: Path, **files: str) -> list[str]:
    with pytest.raises(Invalid) as caught:
        loaded(root, **files)
    return [str(problem) for problem in caught.value.problems]


def test_nothing_declared_is_one_pool_on_this_machine(tmp_path: Path) -> None:
    desired = loaded(tmp_path).desired
    assert desired.pools == (Pool(name="default-pool", default=True),)
    assert [(backend.name, backend.type, backend.options) for backend in desired.backends] == [
        ("local", "local", {"instances": 4})
    ]


@pytest.mark.parametrize("name", sorted(file.stem for file in GOOD.glob("*.yml")))
def test_good_documents_load(tmp_path: Path, name: str) -> None:
    documents = loaded(tmp_path, main=(GOOD / f"{name}.yml").read_text())
    assert json.decode(json.encode(documents.desired), type=Desired) == documents.desired


def test_everything_is_compiled(tmp_path: Path) -> None:
    desired = loaded(tmp_path, main=(GOOD / "everything.yml").read_text()).desired
    pool, lab, fixed = desired.pools
    assert (pool.nodes_min, pool.nodes_target, pool.nodes_max) == (0, None, 4)
    assert (lab.nodes_min, lab.nodes_target, lab.nodes_max) == (2, 2, 2)
    assert (fixed.nodes_min, fixed.nodes_target, fixed.nodes_max) == (1, 2, 3)
    assert pool.need == Need(
        cpu_arch="x86",
        cpu=Span(min=4),
        memory=Span(min=16384, max=65536),
        disk=Span(min=102400),
        shm=8192,
        gpu=GpuNeed(
            vendor="nvidia",
            names=("a100", "h100"),
            count=Span(min=1, max=8),
            memory=Span(min=40960),
            total_memory=Span(min=81920),
            compute_capability=Span(min=80),
        ),
    )
    assert (pool.max_lifetime, pool.hold, pool.unattended) == (7 * 24 * HOUR, 12 * HOUR, None)
    assert pool.max_hourly == Decimal(40)
    assert pool.prevent_destroy
    assert not pool.unsupported
    assert lab.placement == "cluster"
    assert not lab.unsupported
    assert fixed.retry == Retry(no_capacity=True, interruption=True, error=True, duration=HOUR)
    assert desired.profiles[0].retry == Retry(no_capacity=True, interruption=True, error=True, duration=2 * HOUR)
    assert [cap.max for cap in desired.caps] == [4]
    assert (desired.keep, desired.budget, desired.confirm_above) == (30 * 24 * HOUR, Decimal(100), Decimal(5))
    assert [(secret.name, secret.source, secret.reference) for secret in desired.secrets][3] == (
        "SSM",
        "ssm",
        "/team/x",
    )
    assert desired.backends[1].options["creds"]["secret_key"] == "${{ env.AWS }}"
    assert not desired.backends[1].unsupported


def test_the_surprises_of_yaml_1_1_are_off(tmp_path: Path) -> None:
    run = loaded(tmp_path, main=(GOOD / "everything.yml").read_text()).desired.runs[0]
    assert dict(run.env) == {
        "HF_TOKEN": "${{ secrets.HF_TOKEN }}",
        "BARE": None,
        "VERSION": "3.10",
        "ID": "0777",
        "TIME": "22:59",
        "PORTS": "3000:22",
        "NO": "no",
        "E": "1e3",
    }
    assert run.python == "3.10"
    assert run.ports == ("6006", "80:8000")


RUN = "type: task\ncommands: [x]\n"


@pytest.mark.parametrize(
    ("run", "profile", "pool", "price", "source"),
    [
        ("max_price: 1", "max_price: 2", "max_price: 3", Decimal(1), "run"),
        ("", "max_price: 2", "max_price: 3", Decimal(2), "profile p"),
        ("", "", "max_price: 3", Decimal(3), "pool gpu"),
        ("", "", "", None, "default"),
    ],
)
def test_run_beats_profile_beats_pool_beats_default(
    tmp_path: Path, run: str, profile: str, pool: str, price: Decimal | None, source: str
) -> None:
    desired = loaded(
        tmp_path,
        main=f"pools:\n  - name: gpu\n    {pool}\nprofiles:\n  - name: p\n    default: true\n    {profile}\n",
        runs__a=RUN + run,
    ).desired
    assert desired.runs[0].where.max_price == price
    assert dict(desired.runs[0].sources).get("max_price", "default") == source


@pytest.mark.parametrize(
    ("said", "idle"),
    [
        ("idle_duration: 10m", 600),
        ("idle_duration: off", None),
        ("idle_duration: false", None),
        ("idle_duration: -1", None),
        ("idle_duration: 90", 90),
        ("idle_duration: 1h30m", 5400),
        ("termination_policy: dont-destroy", None),
        ("termination_policy: destroy-after-idle\ntermination_idle_time: 7m", 420),
        ("termination_idle_time: 7m", 420),
        ("idle_duration:", 300),
        ("idle_duration: true", 300),
    ],
)
def test_idle_durations(tmp_path: Path, said: str, idle: int | None) -> None:
    run = loaded(tmp_path, runs__a=RUN + said).desired.runs[0]
    assert run.idle_duration == idle
    assert run.destroy_after == (idle is not None)


@pytest.mark.parametrize(
    ("said", "stop"),
    [("", 10), ("\nstop_duration: 2m", 120), ("\nstop_duration: off", None), ("\nprofile: patient", 300),
     ("\nprofile: patient\nstop_duration: 1s", 1)],
)  # fmt: skip
def test_how_long_a_stop_waits(tmp_path: Path, said: str, stop: int | None) -> None:
    found = loaded(tmp_path, main="profiles: [{name: patient, stop_duration: 5m}]", runs__a=RUN + said)
    assert (found.desired.runs[0].stop_duration, found.warnings) == (stop, ())


@pytest.mark.parametrize(("kind", "limit"), [("task", 72 * HOUR), ("service", None), ("dev-environment", 6 * HOUR)])
def test_max_duration_by_type(tmp_path: Path, kind: str, limit: int | None) -> None:
    run = loaded(tmp_path, runs__a=f"type: {kind}\n" + ("ide: vscode" if kind[0] == "d" else "commands: [x]")).desired
    assert run.runs[0].max_duration == limit


@pytest.mark.parametrize(
    ("said", "retry"),
    [
        ("true", Retry(no_capacity=True, interruption=True, error=True, duration=HOUR)),
        ("no", Retry()),
        ("{on_events: [error], duration: 2h}", Retry(error=True, duration=2 * HOUR)),
        ("{on_events: [no-capacity], duration: off}", Retry(no_capacity=True, duration=None)),
    ],
)
def test_retry(tmp_path: Path, said: str, retry: Retry) -> None:
    assert loaded(tmp_path, runs__a=f"{RUN}retry: {said}").desired.runs[0].retry == retry


@pytest.mark.parametrize(
    ("said", "gpu"),
    [
        ("2", GpuNeed(count=Span(min=2, max=2))),
        ("0..", GpuNeed(count=Span(min=0))),
        ("A100", GpuNeed(names=("a100",), count=Span(min=1, max=1))),
        (
            '"A100,H100:80GB:1..8"',
            GpuNeed(names=("a100", "h100"), memory=Span(min=81920, max=81920), count=Span(min=1, max=8)),
        ),
        ('"2:24GB..:nvidia"', GpuNeed(vendor="nvidia", memory=Span(min=24576), count=Span(min=2, max=2))),
        ("tpu", GpuNeed(vendor="google", count=Span(min=1, max=1))),
    ],
)
def test_gpus(tmp_path: Path, said: str, gpu: GpuNeed) -> None:
    assert loaded(tmp_path, runs__a=f"{RUN}resources: {{gpu: {said}}}").desired.runs[0].need.gpu == gpu


def test_a_run_file_is_named_by_its_file(tmp_path: Path) -> None:
    assert [run.name for run in loaded(tmp_path, runs__train=RUN, runs__b="name: other\n" + RUN).desired.runs] == [
        "other",
        "train",
    ]


def test_a_run_file_whose_name_is_no_name(tmp_path: Path) -> None:
    assert problems(tmp_path, runs__Train=RUN) == [
        ".dstack/runs/Train.yml:1:1: `name` is missing, and the file's name cannot stand for it: "
        "'Train' is not a-z, 0-9 and -"
    ]


def test_a_document_may_lie_among_the_runs(tmp_path: Path) -> None:
    assert [pool.name for pool in loaded(tmp_path, runs__x="pools: [{name: a}]").desired.pools] == ["a"]


def test_lists_of_several_files_concatenate(tmp_path: Path) -> None:
    desired = loaded(
        tmp_path,
        a="pools: [{name: a, default: true}]\nauthorized_keys: [ssh-ed25519 AAAA x]\nsecrets: {A: {env: A}}",
        b="pools: [{name: b}]\nauthorized_keys: [ssh-ed25519 AAAB y]\nsecrets: {B: {env: B}}",
    ).desired
    assert [pool.name for pool in desired.pools] == ["a", "b"]
    assert desired.authorized_keys == ("ssh-ed25519 AAAA x", "ssh-ed25519 AAAB y")
    assert [secret.name for secret in desired.secrets] == ["A", "B"]


def test_the_name_and_the_id_of_a_project_may_stand_apart(tmp_path: Path) -> None:
    desired = loaded(tmp_path, main="project: {name: Demo}", project="project: {id: abcd1234}").desired
    assert (desired.project, desired.project_name) == ("abcd1234", "Demo")


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (
            "budget: {max_hourly: 1}",
            "\nbudget: {max_hourly: 2}",
            "b.yml:2:1: budget: said twice, first at .dstack/a.yml:1:1",
        ),
        (
            "project: {id: abcd1234}",
            "project: {id: abcd1235}",
            "b.yml:1:11: project.id: said twice, first at .dstack/a.yml:1:11",
        ),
        (
            "pools: [{name: x}]",
            "pools: [{name: x}]",
            "b.yml:1:16: pools[0].name: `x` is declared twice, first at .dstack/a.yml:1:16",
        ),
        (
            "profiles: [{name: x}]",
            "profiles: [{name: x}]",
            "b.yml:1:19: profiles[0].name: `x` is declared twice, first at .dstack/a.yml:1:19",
        ),
        (
            "secrets: {X: {env: A}}",
            "secrets: {X: {env: B}}",
            "b.yml:1:11: secrets.X: `X` is declared twice, first at .dstack/a.yml:1:11",
        ),
    ],
)
def test_said_twice_gives_both_positions(tmp_path: Path, one: str, other: str, said: str) -> None:
    assert problems(tmp_path, a=one, b=other) == [f".dstack/{said}"]


def test_a_run_declared_in_two_ways(tmp_path: Path) -> None:
    assert problems(tmp_path, a="runs: [{type: task, name: train, commands: [x]}]", runs__train=RUN) == [
        ".dstack/runs/train.yml:1:1: name: `train` is declared twice, first at .dstack/a.yml:1:27"
    ]


def test_every_file_is_read_in_one_pass(tmp_path: Path) -> None:
    said = problems(tmp_path, a="pools: [", b="polls: []", runs__c="type: task\nnode: 2")
    assert [line.split(": ")[0] for line in said] == [
        ".dstack/a.yml:2:1",
        ".dstack/b.yml:1:1",
        ".dstack/runs/c.yml:1:1",
        ".dstack/runs/c.yml:2:1",
    ]


def test_own_profiles_are_known_and_the_projects_win(tmp_path: Path) -> None:
    (tmp_path / "home" / ".dstack").mkdir(parents=True)
    (tmp_path / "home" / ".dstack" / "profiles.yml").write_text(
        "profiles: [{name: mine, max_price: 1}, {name: ours, max_price: 1}]"
    )
    desired = loaded(
        tmp_path,
        main="profiles: [{name: ours, max_price: 2}]",
        runs__a=RUN + "profile: mine",
        runs__b=RUN + "profile: ours",
    ).desired
    assert [run.where.max_price for run in desired.runs] == [Decimal(1), Decimal(2)]


def test_the_own_file_holds_profiles_only(tmp_path: Path) -> None:
    (tmp_path / "home" / ".dstack").mkdir(parents=True)
    (tmp_path / "home" / ".dstack" / "profiles.yml").write_text("pools: [{name: a}]")
    assert problems(tmp_path) == [
        "~/.dstack/profiles.yml:1:9: pools[0]: only `profiles` may stand in the user's own file"
    ]


@pytest.mark.parametrize(
    ("pools", "default"),
    [
        ("[{name: a}]", "a"),
        ("[{name: a}, {name: default-pool}]", "default-pool"),
        ("[{name: a}, {name: b}]", ""),
        ("[{name: a}, {name: b, default: true}, {name: default-pool}]", "b"),
    ],
)
def test_the_default_pool(tmp_path: Path, pools: str, default: str) -> None:
    desired = loaded(tmp_path, main=f"pools: {pools}").desired
    assert [pool.name for pool in desired.pools if pool.default] == [default] * bool(default)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "pools: [{name: a, nodes: 2, idle_duration: 5m}]",
            "1:44: pools[0].idle_duration: has no effect: `nodes: 2` is fixed, so no idle instance ever goes",
        ),
        (
            "pools: [{name: a, nodes: 4, backends: [aws], max_price: 3, budget: {max_hourly: 5}}]",
            "the minimum may cost $12/h (4 instances at `max_price` $3), over the budget of $5/h",
        ),
        (
            "pools: [{name: a, nodes: 4, backends: [aws], max_price: 3}]\nbudget: {max_hourly: 5}",
            "2:22: budget.max_hourly: the minima of the pools may cost $12/h at their `max_price`, "
            "over the budget of $5/h",
        ),
        (
            "pools: [{name: a, nodes: 0..2}]\nruns: [{type: task, name: r, commands: [x], nodes: 4}]",
            "2:52: runs[0].nodes: no pool can fit it: 4 nodes, and pool `a` holds at most 2",
        ),
        (
            "pools: [{name: a, resources: {cpu: ..4}}]\n"
            "runs: [{type: task, name: r, commands: [x], resources: {cpu: 8..}}]",
            "2:56: runs[0].resources: no pool can fit it: it needs 8.. CPUs, and pool `a` has ..4",
        ),
        (
            "pools: [{name: a, resources: {gpu: A100}}]\n"
            "runs: [{type: task, name: r, commands: [x], resources: {gpu: H100}}]",
            "no pool can fit it: it needs a GPU h100, and pool `a` has a100",
        ),
        (
            "backends: [{type: aws, ingress: [own, 0.0.0.0/0]}]",
            "main.yml:1:39: backends[0].ingress[1]: `0.0.0.0/0` is everybody: port 22 is open to the whole world",
        ),
        ("backends: [{type: aws, ingress: '::/0'}]", "main.yml:1:33: backends[0].ingress: `::/0` is everybody"),
        (
            "runs: [{type: task, name: r, commands: [x], env: {HF_TOKEN: hf_abcdefghijklmnopqrst}}]",
            "1:61: runs[0].env.HF_TOKEN: `HF_TOKEN` looks like a secret in plain text: declare it in `secrets` "
            "and write "
            "`${{ secrets.HF_TOKEN }}`",
        ),
    ],
)
def test_contradictions_are_warned_of(tmp_path: Path, text: str, warning: str) -> None:
    assert any(warning in line for line in loaded(tmp_path, main=text).warnings), loaded(tmp_path, main=text).warnings


def test_no_warning_without_cause(tmp_path: Path) -> None:
    assert (
        loaded(
            tmp_path,
            main="pools: [{name: a, nodes: 2}, {name: b, default: true, budget: {max_hourly: 0}, nodes: 2}]",
            runs__a=RUN + "env: {TOKENIZERS_PARALLELISM: 'false', TOKEN_FILE: /run/secrets/token}",
        ).warnings
        == ()
    )


def test_the_hash_is_of_what_a_run_does(tmp_path: Path) -> None:
    def hash_of(said: str, name: str = "a") -> str:
        return loaded(tmp_path, runs__a=f"name: {name}\n{RUN}{said}").desired.runs[0].hash

    plain = hash_of("")
    for said in (
        "priority: 3",
        "max_price: 4",
        "retry: true",
        "tags: {a: b}",
        "spot_policy: auto",
        "idle_duration: off",
        "backends: [local]",
        "hold: 3h",
        "creation_policy: reuse",
        "formerly: [b]",
        "# a comment",
        "env:",
    ):
        assert hash_of(said) == plain, said
    assert hash_of("", name="other") == plain
    for said in ("rerun: 1", "nodes: 2", "env: {A: b}", "python: 3.10", "resources: {cpu: 2}", "max_duration: 1h"):
        assert hash_of(said) != plain, said
    assert len(plain) == 16


def test_the_digest_is_of_names_and_bytes(tmp_path: Path) -> None:
    first = loaded(tmp_path, main="pools: []").digest
    assert loaded(tmp_path, main="pools: []").digest == first
    assert loaded(tmp_path, main="pools: [] # x").digest != first
    (tmp_path / ".dstack" / "notes.txt").write_text("no document")
    assert loaded(tmp_path, main="pools: []").digest == first


def test_known_documents_are_not_read_again(tmp_path: Path) -> None:
    documents = loaded(tmp_path, main="pools: [{name: a}]")
    marked = Desired(project="marked123", compiler=COMPILER)
    assert load(tmp_path, home=tmp_path, known=(documents.digest, marked)).desired is marked
    assert load(tmp_path, home=tmp_path, known=("other", marked)).desired == documents.desired
    assert load(tmp_path, home=tmp_path, known=(documents.digest, Desired(compiler="0"))).desired == documents.desired


def test_documents_that_cannot_be_read_are_told_of(tmp_path: Path) -> None:
    (project(tmp_path) / ".dstack" / "folder.yml").mkdir()
    assert problems(tmp_path) == [".dstack/folder.yml:1:1: cannot be read: Is a directory"]


def test_find_project(tmp_path: Path) -> None:
    root = project(tmp_path / "work")
    (root / "a" / "b").mkdir(parents=True)
    assert find_project(root / "a" / "b", home=tmp_path) == root.resolve()
    assert find_project(root / "a" / "b", home=root) is None
    assert find_project(tmp_path, home=tmp_path) is None


def test_what_does_not_work_yet_is_no_warning_but_told_apart(tmp_path: Path) -> None:
    documents = loaded(
        tmp_path,
        main="backends: [{type: gcp, project_id: p}, {type: local}]\npools: [{name: a, blocks: 2}]",
        runs__r=RUN + "backends: [gcp]\nimage: x\nvolumes: ['data:/b']",
    )
    assert documents.warnings == ()
    assert documents.unsupported == (
        ".dstack/main.yml:1:12: backends[0]: the backend `gcp` is not available in this version of dstack",
        ".dstack/runs/r.yml:1:1: the volume `data`: network volumes are not supported yet, folders of the instance are",
        ".dstack/runs/r.yml:1:1: only the backend `gcp` is allowed: not available in this version of dstack",
    )
    assert documents.desired.runs[0].unsupported
    assert documents.desired.unsupported == ()


@pytest.mark.parametrize(
    ("gpu", "said"),
    [
        (
            "A100:80",
            "asks for 80 GPUs in one node, and no instance has so many; for a memory of 80 GB write `A100:80GB`",
        ),
        ("24", "asks for 24 GPUs in one node, and no instance has so many; for a memory of 24 GB write `24GB`"),
        ("A100:40GB:32..", "asks for 32 GPUs in one node, and no instance has so many"),
        (
            "{name: H100, count: 80}",
            "asks for 80 GPUs in one node, and no instance has so many; for a memory of 80 GB write `H100:80GB`",
        ),
        ("A1000:80GB", "no GPU `A1000` is known here, did you mean `A100`?"),
        ("RTX4O90", "no GPU `RTX4O90` is known here, did you mean `RTX4090`?"),
        ("A100:80GB:16", ""),
        ("A100,H100", ""),
        ("0..32", ""),
        ("mygpu77", ""),
    ],
)
def test_gpus_that_were_hardly_meant_are_a_warning(tmp_path: Path, gpu: str, said: str) -> None:
    documents = loaded(
        tmp_path, main=f"pools: [{{name: a, resources: {{gpu: {gpu!r}}}}}]" if "{" not in gpu else "pools: [{name: a}]",
        runs__r=RUN + f"resources:\n  gpu: {gpu}",
    )  # fmt: skip
    run = [f".dstack/runs/r.yml:4:8: resources.gpu: {said}"] if said else []
    assert [one for one in documents.warnings if "GPU" in one and "runs/r" in one and "no pool" not in one] == run
    if "{" not in gpu:
        assert bool([one for one in documents.warnings if said and said in one and "main.yml" in one]) == bool(said)


@pytest.mark.parametrize(
    ("backends", "allowed", "said"),
    [
        ("[{type: local}]", "[aws]", "only the backend `aws` is allowed: declare `aws` under `backends`"),
        (
            "[{type: local}]",
            "[cudo]",
            "only the backend `cudo` is allowed: not available in this version of dstack",
        ),
        (
            "[{type: local}]",
            "[aws, azure]",
            "only the backends `aws`, `azure` are allowed: declare `aws`, `azure` under `backends`",
        ),
    ],
)
def test_a_backend_that_is_only_not_declared_is_said_to_be_that(
    tmp_path: Path, backends: str, allowed: str, said: str
) -> None:
    documents = loaded(tmp_path, main=f"backends: {backends}\npools: [{{name: a, backends: {allowed}}}]")
    assert [one.partition("pools[0]: ")[2] for one in documents.unsupported] == [said]


def test_what_a_profile_names_is_known(tmp_path: Path) -> None:
    assert problems(
        tmp_path,
        main="pools: [{name: gpu}]\nprofiles: [{name: p, default: true, pool_name: gpuu, backends: [lokal]}]",
        runs__r=RUN,
    ) == [
        ".dstack/main.yml:2:48: profiles[0].pool_name: unknown pool `gpuu`, did you mean `gpu`?",
        ".dstack/main.yml:2:65: profiles[0].backends[0]: unknown backend `lokal`, did you mean `local`?",
    ]


def test_which_project_this_is_does_not_need_valid_documents(tmp_path: Path) -> None:
    project(tmp_path, a="project: {name: Demo}\npols: []", b="pools: [", c="state: x\nproject: {id: abcd1234}")
    assert identity(tmp_path) == ({"project": {"name": "Demo", "id": "abcd1234"}, "state": "x"}, "")
    project(tmp_path, d="project: [")
    assert identity(tmp_path)[1].startswith(".dstack/d.yml:2:1: not valid YAML")


@pytest.mark.parametrize(
    ("requires", "version", "met"),
    [
        (">=0.4,<0.5", "0.4.3", True),
        (">=0.4,<0.5", "0.5.0", False),
        (">=0.4", "0.3.9", False),
        ("==1.0", "1.0.0", True),
        ("!=1.0", "1.0.0", False),
        ("~=1.2", "1.9", True),
        ("~=1.2", "2.0", False),
        ("~=1.2.3", "1.3.0", False),
        (">1.0,<=1.1", "1.1", True),
        (">=0.10", "0.9", False),
        (">=0.4", "0.4.0rc1", False),
        (">=0.4,<0.6", "0.5.dev1", True),
        ("==1.0", "1.0+local", True),
    ],
)
def test_required_versions(requires: str, version: str, met: bool) -> None:
    message = unmet_requirement(requires, version=version)
    said = f"dstack {version} is installed, and the documents require {requires}: `pip install "
    assert message == ("" if met else f"{said}'dstack-pools{requires}'`, or change `requires`")


# ---------------------------------------------------------------- machines in clouds


@pytest.mark.parametrize(
    ("written", "mode", "jump"),
    [
        ("direct", "direct", ""),
        ("ssm", "program ssm", ""),
        ("instance-connect", "program instance-connect", ""),
        ("{jump: {hostname: bastion, user: ann, port: 2222}}", "jump", "bastion"),
    ],
)
def test_how_machines_are_reached_is_their_backends_or_their_pools_word(
    written: str, mode: str, jump: str, tmp_path: Path
) -> None:
    desired = loaded(
        tmp_path,
        main=f"backends: [{{type: aws, creds: {{profile: me}}, connect: {written}}}]\n"
        f"pools: [{{name: a, default: true}}, {{name: b, connect: {written}}}]",
    ).desired
    way = way_of(desired.backends[0].options)
    assert (f"{way.mode} {way.name}".strip(), way.jump.hostname if way.jump else "", way.profile) == (mode, jump, "me")
    plain, own = (pool.connect for pool in desired.pools)
    assert plain is None
    assert own == replace(way, profile="")


def test_names_of_programs_are_of_one_type_each() -> None:
    """So that the name alone tells whose program leads to an instance."""
    names = [name for one in TYPES.values() if one.available for name in one.access]
    assert sorted(names) == sorted(set(names))


def test_connect_is_checked_against_the_types_access() -> None:
    """At its place, and only for backends that a pool may buy of: the others are not reached by it."""
    written = "pools:\n- name: a\n  connect: ssm\n"
    (entry,) = read_documents([(parse_yaml(written.encode(), shown="pools.yml"), False)]).pools
    clouds = {
        one.name: one
        for one in (
            BackendConfig(name="mine", type="aws", options={"connect": {"mode": "program", "name": "iap"}}),
            BackendConfig(name="here", type="local"),
            BackendConfig(name="later", type="gcp"),
        )
    }
    iap = Pool(name="a", connect=Way(mode="program", name="iap"))
    why = "backend `mine` (aws) cannot be reached by `iap`: it has `direct`, `jump`, `instance-connect`, `ssm`"
    located = f"pools.yml:3:12: pools[0].connect: {why}"
    assert [str(one) for one in pool_access(entry, iap, clouds)] == [located]
    assert [str(one) for one in backend_access(entry, clouds["mine"])] == [located]
    elsewhere = replace(iap, where=Where(backends=("here", "later")))
    for fine in (elsewhere, replace(iap, connect=Way(mode="program", name="ssm")), replace(iap, connect=None)):
        assert list(pool_access(entry, fine, clouds)) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("backends: [{type: aws, connect: tunnel}]", "a way to connect"),
        ("backends: [{type: aws, connect: {jump: {user: ann}}}]", "hostname"),
        ("backends: [{type: aws, connect: {hop: x}}]", "`{jump: {hostname: …}}`"),
        ("authorized_keys: [hello]", "no public key"),
        ("authorized_keys: ['ssh-ed25519 AAAA\\n# dstack: end']", "no public key"),
        ("authorized_keys: ['command=\"x\" ssh-ed25519 AAAA']", "no public key"),
        ("authorized_keys: ['-----BEGIN OPENSSH PRIVATE KEY-----']", "a private key"),
    ],
)
def test_what_is_no_way_and_no_key(line: str, said: str, tmp_path: Path) -> None:
    assert said in str(problems(tmp_path, main=line))


def test_a_clouds_credentials_may_be_a_declared_secret_of_the_environment(tmp_path: Path) -> None:
    main = (
        "backends: [{type: aws, creds: {access_key: '${{secrets.ID}}', secret_key: '${{ env.KEY }}'}}]\n"
        "secrets: {ID: {env: AWS_ID_OF_LAB}}"
    )
    (config,) = loaded(tmp_path, main=main).desired.backends
    assert config.options["creds"] == {"access_key": "${{ env.AWS_ID_OF_LAB }}", "secret_key": "${{ env.KEY }}"}


@pytest.mark.parametrize("found", ["file: key.txt", "command: pass show key", "ssm: /team/key"])
def test_other_secrets_are_none_of_a_clouds_credentials(found: str, tmp_path: Path) -> None:
    main = (
        "backends: [{type: aws, creds: {access_key: '${{ env.ID }}', secret_key: '${{ secrets.KEY }}'}}]\n"
        f"secrets: {{KEY: {{{found}}}}}"
    )
    kind = found.partition(":")[0]
    where = ".dstack/main.yml:1:73: backends[0].creds.secret_key"
    said = f"{where}: the secret `KEY` is a `{kind}`: a backend's credentials"
    assert problems(tmp_path, main=main)[0].startswith(said)


RENAMED = """\
pools: [{name: new, default: true, formerly: [old]}, {name: other}]
profiles: [{name: cheap, pool_name: old}]
runs:
  - {name: a, type: task, commands: [x], pool_name: old}
  - {name: b, type: task, commands: [x], profile: cheap}
"""


def test_a_pool_renamed_by_one_change_and_used_by_another_is_found(tmp_path: Path) -> None:
    """Each change is right alone; merged, they must not break main."""
    (tmp_path / ".dstack").mkdir()
    (tmp_path / ".dstack" / "a.yml").write_text(RENAMED)
    documents = load(tmp_path, home=tmp_path)
    assert [(run.name, run.pool) for run in documents.desired.runs] == [("a", "new"), ("b", "new")]
    said = [one for one in documents.warnings if "is called" in one]
    assert said == [
        ".dstack/a.yml:2:37: profiles[0].pool_name: pool `old` is called `new` now",
        ".dstack/a.yml:4:53: runs[0].pool_name: pool `old` is called `new` now",
    ]
    (tmp_path / ".dstack" / "a.yml").write_text(RENAMED.replace("{name: other}", "{name: old}"))
    with pytest.raises(Invalid, match="`old` is still declared"):
        load(tmp_path, home=tmp_path)
