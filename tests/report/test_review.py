"""A plan for a review: because of this change or anyway, gates, and a comment that nothing can break out of."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from msgspec.structs import replace
from syrupy.assertion import SnapshotAssertion

from reconciler.report.fail_on import BadGate, GateFailure, gates, held
from reconciler.report.markdown import LIMIT, marker, render_markdown
from reconciler.report.plan_diff import Difference, Side, subtract
from schemas.configuration import Change, PlanCost, PoolCost
from schemas.desired import Desired
from schemas.documents.generate import schema
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.plan import Launch, Plan, Stop, Terminate, Unmet
from schemas.resources import Resources
from schemas.run import RunSpec
from schemas.state import VERSION, State
from tests.doubles.commands.command import POOLS, Folder, Ran

BOX = Resources(cpus=4, memory=16384)
HERE = Instance(id="i", name="gpu-0", pool="gpu", backend="aws", place="aws", resources=BOX, price=Decimal(1))
STATE = State(version=VERSION, project="p" * 8, lineage="l", instances=(HERE,))


def launch(*names: str, pool: str = "gpu", price: str | None = "1.50", why: str = "floor") -> Launch:
    offer = Offer(
        backend="aws",
        region="us-east-1",
        instance_type="g5",
        resources=BOX,
        price=None if price is None else Decimal(price),
    )
    return Launch(launch="l", pool=pool, ids=names, names=names, offer=offer, why=why)


END = Terminate(instance="i", name="gpu-0", pool="gpu", why="idle for 5m")


def plan_of(*actions: Any, **fields: Any) -> Plan:
    return Plan(version=1, project="p" * 8, generation=7, made_at=1_793_491_200, actions=actions, **fields)


def side(plan: Plan, *runs: RunSpec) -> Side:
    return Side(plan=plan, state=STATE, desired=Desired(runs=runs))


def parts(mine: Side, base: Side) -> tuple[list[str], list[str], list[str]]:
    found = subtract(mine, base, commit="c" * 40)
    return (
        [row.instance or row.run for row in found.change],
        [row.instance or row.run for row in found.anyway],
        [row.instance or row.run for row in found.averted],
    )


# ---------------------------------------------------------------- because of this change


def test_what_both_plans_do_would_happen_anyway() -> None:
    mine, base = side(plan_of(launch("gpu-1", "gpu-2"), END)), side(plan_of(launch("gpu-1"), END))
    assert parts(mine, base) == (["gpu-2"], ["gpu-1", "gpu-0"], [])
    assert parts(base, mine) == ([], ["gpu-1", "gpu-0"], ["gpu-2"])
    assert parts(mine, mine) == ([], ["gpu-1", "gpu-2", "gpu-0"], [])


def test_the_name_that_a_new_instance_gets_is_no_difference_its_price_is() -> None:
    assert parts(side(plan_of(launch("gpu-7"))), side(plan_of(launch("gpu-1")))) == ([], ["gpu-7"], [])
    dear = side(plan_of(launch("gpu-1", price="2")))
    assert parts(dear, side(plan_of(launch("gpu-1")))) == (["gpu-1"], [], ["gpu-1"])


def test_a_run_that_is_written_otherwise_is_the_changes_own() -> None:
    stop = plan_of(Stop(run="r", name="train", attempt="a", pool="gpu", why="x"))
    same = side(stop, RunSpec(name="train", hash="1"))
    assert parts(same, same) == ([], ["train"], [])
    assert parts(side(stop, RunSpec(name="train", hash="2")), same) == (["train"], [], ["train"])


def test_unmet_is_the_changes_own_by_its_subject() -> None:
    mine = plan_of(unmet=(Unmet(subject="run a", why="needs 3"), Unmet(subject="run b", why="x")))
    base = plan_of(unmet=(Unmet(subject="run a", why="needs 2"),))
    assert [one.subject for one in subtract(side(mine), side(base), commit="c").unmet] == ["run b"]


# ---------------------------------------------------------------- gates


def why(text: str, plan: Plan, difference: Difference | None = None) -> list[str]:
    return [one.why for one in held(gates(text), plan, STATE, difference=difference)]


def test_gates() -> None:
    dear = plan_of(launch("gpu-1"), END, hourly_after=Decimal("20.01"), unmet=(Unmet(subject="run a", why="x"),))
    assert why("destroy, cost>20,unmet", dear) == [
        "terminate gpu-0",
        "$20.01/h after, above $20.00/h: creates gpu-1 $1.50/h",
        "run a: x",
    ]
    assert why("destroy,cost>20.01,unmet", plan_of(launch("gpu-1"), hourly_after=Decimal("20.01"))) == ["", "", ""]
    assert why("cost>20", plan_of(launch("gpu-1", price=None))) == ["gpu-1 has no known price"]
    unseen = plan_of(hourly_after=Decimal(1), uncounted=("aws was never seen (denied): what it has is not known",))
    (held_back,) = why("cost>20", unseen)
    assert held_back == "cannot be ruled out: aws was never seen (denied): what it has is not known"
    many = plan_of(*[Terminate(instance=f"x{n}", name=f"x{n}", pool="gpu", why="") for n in range(13)])
    assert why("destroy", many)[0].endswith("terminate x9 and 3 more")


def test_against_other_documents_only_the_changes_own_counts() -> None:
    unmet = (Unmet(subject="run a", why="x"),)
    mine, base = plan_of(END, launch("gpu-1"), unmet=unmet), plan_of(END, unmet=unmet)
    found = subtract(side(mine), side(base), commit="c")
    assert why("destroy,unmet", mine, found) == ["", ""]
    assert why("destroy", mine, subtract(side(mine), side(plan_of()), commit="c")) == ["terminate gpu-0"]


@pytest.mark.parametrize("text", ["destry", "", "destroy,", "cost", "cost>", "cost>x", "cost<3", "cost>-1", "unmet>1"])
def test_an_unknown_gate_lists_those_that_there_are(text: str) -> None:
    with pytest.raises(BadGate, match=r"there is no such gate; there are destroy, cost>N, max-cost>N, pending, config"):
        gates(text)


# ---------------------------------------------------------------- a comment

NASTY = st.one_of(
    st.sampled_from(
        [
            "```",
            "````\n# pwned",
            "@everyone",
            "<img src=x onerror=alert(1)>",
            "-->",
            "</details>",
            "~~~",
            "`" * 40,
            "[x](http://evil)",
            "| a | b |",
            "/approve",
            "@org/team",
            "a\r\n\r\n# b",
            "\x1b[31m",
            "#1",
            "x" * 9000,
        ]
    ),
    st.text(max_size=40),
)


@st.composite
def plans(draw: st.DrawFn) -> tuple[Plan, Difference | None, tuple[GateFailure, ...]]:
    actions = [
        launch(draw(NASTY), pool=draw(NASTY), why=draw(NASTY)) for _ in range(draw(st.integers(0, 6)))
    ]  # fmt: skip
    made = plan_of(
        *actions,
        unmet=tuple(Unmet(subject=draw(NASTY), why=draw(NASTY)) for _ in range(draw(st.integers(0, 8)))),
        warnings=tuple(draw(st.lists(NASTY, max_size=8))),
        notes=tuple(draw(st.lists(NASTY, max_size=3))),
        observed=tuple((draw(NASTY), None, draw(NASTY)) for _ in range(draw(st.integers(0, 2)))),
        next_actor=draw(NASTY),
    )
    base = plan_of(*actions[1:])
    difference = draw(st.sampled_from([None, subtract(side(made), side(base), commit="c" * 40)]))
    return made, difference, (GateFailure(gate="destroy", why=draw(NASTY)),)


OURS = re.compile(
    r"<!-- dstack-plan:p{8} -->|dstack plan: .*|\*\*[A-Z][a-z ]+\*\*|</?details>|<details><summary>[A-Z][a-z ]+ "
    r"\(\d+ lines?\)</summary>|\d+ more lines? left out: `dstack plan` shows all\.|"
    r"Made at \S+ on generation \d+ of the state\.|"
    r"Because of this change: \d+ actions?, [+-]\$\S+\. Compared with the documents of `c{10}`\."
)


@given(plans())
def test_nothing_breaks_out_of_it_and_nobody_is_called(
    made: tuple[Plan, Difference | None, tuple[GateFailure, ...]],
) -> None:
    plan, difference, found = made
    text = render_markdown(plan, STATE, now=0, difference=difference, gates=found)
    assert text.startswith(marker("p" * 8) + "\n")
    assert len(text) <= LIMIT
    assert not re.search(r"@\S", text.replace("@\u200b", ""))
    assert not re.search(r"^/", text, re.M)
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    kinds = {token.type.removesuffix("_open").removesuffix("_close") for token in tokens}
    assert kinds <= {"html_block", "heading", "inline", "fence", "paragraph"}
    for token in tokens:
        if token.type in ("inline", "html_block"):
            for line in filter(None, token.content.splitlines()):
                assert OURS.fullmatch(line), line


def test_it_is_cut_by_whole_lines_and_says_how_many() -> None:
    warnings = tuple(f"warning {number} {'x' * 90}" for number in range(2000))
    text = render_markdown(plan_of(END, warnings=warnings, next_actor="cron"), STATE, now=0)
    assert LIMIT - 5000 < len(text) <= LIMIT
    shown = [line for line in text.splitlines() if line.startswith("warning ")]
    assert shown == list(warnings[: len(shown)])
    assert f"{2000 - len(shown)} more lines left out: `dstack plan` shows all." in text
    assert "- gpu-0  " in text
    assert text.count("```") % 2 == 0
    one = render_markdown(plan_of(END, warnings=("x" * 100_000,), notes=("cron",)), STATE, now=0)
    assert "1 more line left out" in one
    assert "cron" in one


def test_a_comment(snapshot: SnapshotAssertion) -> None:
    made = plan_of(
        launch("gpu-1", "gpu-2", why="run ``` @ann: needs two"),
        END,
        hourly_before=Decimal(1),
        hourly_after=Decimal(3),
        unmet=(Unmet(subject="run big", why="<b>no offer</b>\n# x"),),
        warnings=("pool a\x07: /approve",),
        observed=(("aws", 1_793_491_000, ""),),
        next_actor="last tick 5m ago by cron@lab",
    )
    difference = subtract(side(made), side(plan_of(END, hourly_after=Decimal(0))), commit="abcdef0123456789")
    text = render_markdown(made, STATE, now=made.made_at, difference=difference, gates=held(
        gates("cost>2"), made, STATE, difference=difference))  # fmt: skip
    assert text == snapshot


# ---------------------------------------------------------------- with git and the command


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path / "project")
    made.write(".dstack/pools.yml", POOLS)
    made.write(".dstack/.gitignore", "state/\nkeys/\n")
    git(made, "init", "-q", "-b", "main")
    git(made, "add", ".")
    git(made, "commit", "-q", "-m", "base")
    yield made
    git(made, "checkout", "-q", "-f", "main")
    made.dstack("destroy", "--confirm", "demo")


def git(folder: Folder, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder.root), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def reviewed(folder: Folder, *flags: str) -> tuple[Ran, dict[str, Any]]:
    ran = folder.dstack("plan", "--json", "--against", "main", *flags)
    found = json.loads(ran.out)
    jsonschema.validate(found, schema("plan-json"))
    return ran, found


WANTED = "- {name: more, nodes: 1, idle_duration: off, resources: {cpu: 1.., memory: 0.1GB.., disk: 0.1GB..}}"


def test_against_a_revision(folder: Folder) -> None:
    folder.write(".dstack/runs/old.yml", "type: task\nname: old\ncommands: [echo old]\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "a run that waits")
    git(folder, "checkout", "-q", "-b", "feature")
    ran, found = reviewed(folder, "--detailed-exitcode")
    assert (ran.code, found["against"]["change"]) == (0, [])  # there is something to do, and none of it is the change's
    assert [one["kind"] for one in found["against"]["anyway"]] == ["update", "launch"]
    folder.write(".dstack/pools.yml", POOLS + f"  {WANTED}\n")
    before = tree(folder)
    ran, found = reviewed(folder, "--detailed-exitcode", "--fail-on", "destroy,unmet")
    assert ran.code == 2
    assert [(one["kind"], one["pool"]) for one in found["against"]["change"]] == [("launch", "more")]
    assert len(found["actions"]) == 3
    assert found["gates"] == [
        {"gate": "destroy", "failed": False, "why": ""}, {"gate": "unmet", "failed": False, "why": ""},
    ]  # fmt: skip
    assert found["against"]["commit"] == git(folder, "rev-parse", "main")
    text = folder.dstack("plan", "--against", "main").out
    assert "BECAUSE OF THIS CHANGE (against " in text
    assert "+ pool more" in text
    assert "PLANNED ANYWAY\n" in text
    assert "Of this: 1 action because of this change (+$0.00/h), 2 anyway." in text
    assert tree(folder) == before, "the work tree was touched"


def tree(folder: Folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder.root)): path.read_bytes()
        for path in sorted(folder.root.rglob("*"))
        if path.is_file() and "/objects/" not in str(path)
    }


def test_what_the_other_branch_did_since_is_no_change_of_this_one(folder: Folder, tmp_path: Path) -> None:
    git(folder, "checkout", "-q", "-b", "feature")
    folder.write(".dstack/pools.yml", POOLS + f"  {WANTED}\n")
    git(folder, "commit", "-q", "-am", "one more")
    began = git(folder, "rev-parse", "main")
    git(folder, "checkout", "-q", "main")
    for name in ("a", "b"):
        folder.write(f".dstack/runs/{name}.yml", f"type: task\nname: {name}\ncommands: [echo {name}]\n")
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", name)
    git(folder, "checkout", "-q", "feature")
    _, found = reviewed(folder)
    against = found["against"]
    assert [(one["kind"], one["pool"]) for one in against["change"]] == [("launch", "more")]
    assert (against["averted"], against["commit"], against["behind"]) == ([], began, 2)
    said = folder.dstack("plan", "--against", "main", "--markdown", "plan.md").out
    assert f"BECAUSE OF THIS CHANGE (against {began[:10]}; main is 2 commits ahead)" in said
    assert (
        f"Compared with the documents of `{began[:10]}`; `main` is 2 commits ahead."
        in (folder.root / "plan.md").read_text()
    )
    shallow = Folder(tmp_path / "shallow")
    url = f"file://{folder.root}"
    subprocess.run(["git", "clone", "-q", "--depth=1", "-b", "feature", url, str(shallow.root)], check=True)
    git(shallow, "fetch", "-q", "--depth=1", "origin", "main")
    ran = shallow.dstack("plan", "--against", "FETCH_HEAD")
    assert ran.code == 1
    assert "this clone is shallow" in ran.err
    assert "fetch-depth: 0" in ran.err


def test_what_is_declared_and_not_there_is_a_difference(folder: Folder) -> None:
    """Drift that no action can mend is drift: a nightly job must not close its issue."""
    assert folder.dstack("plan", "--detailed-exitcode").code == 2, "a configuration to apply"
    assert folder.dstack("apply", "-y").code == 0
    assert folder.dstack("plan", "--detailed-exitcode").code == 0
    folder.write(".dstack/big.yml", "pools: [{name: big, nodes: 2, resources: {cpu: 4000..}}]\n")
    ran = folder.dstack("plan", "--detailed-exitcode")
    assert ran.code == 2
    assert "2 of 2 nodes missing" in ran.out
    assert folder.dstack("apply", "-y", "-d", "--metrics", "m.prom").code in (0, 1)
    assert folder.dstack("plan", "--refresh", "--detailed-exitcode").code == 2
    metrics = (folder.root / "m.prom").read_text()
    assert 'dstack_instances_missing{project="demo",pool="big"} 2' in metrics
    assert 'dstack_differences{project="demo"} 1' in metrics
    git(folder, "checkout", "-q", "-b", "feature")
    assert folder.dstack("plan", "--against", "main", "--detailed-exitcode").code == 2  # left unmet by the change


def test_a_change_that_averts_something_is_its_own(folder: Folder) -> None:
    folder.write(".dstack/runs/old.yml", "type: task\nname: old\ncommands: [echo old]\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "a run that waits")
    (folder.root / ".dstack/runs/old.yml").unlink()
    ran, found = reviewed(folder, "--detailed-exitcode")
    assert ran.code == 2
    assert [one["kind"] for one in found["against"]["averted"]] == ["update", "launch"]
    assert "NO LONGER PLANNED BECAUSE OF THIS CHANGE\n" in folder.dstack("plan", "--against", "main").out


@pytest.mark.parametrize("revision", ["nowhere", "--help", "HEAD:.dstack", "main..main", "-rf"])
def test_a_revision_that_git_does_not_have(folder: Folder, revision: str) -> None:
    ran = folder.dstack("plan", f"--against={revision}")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"error: --against {revision}: git has no such commit here; `git fetch origin`")


def test_revisions_of_other_shapes(folder: Folder, tmp_path: Path) -> None:
    """Broken documents there are located; none there, links, other versions and another project id do no harm."""
    git(folder, "checkout", "-q", "--orphan", "empty")
    git(folder, "rm", "-q", "-r", "--cached", ".")
    git(folder, "commit", "-q", "--allow-empty", "-m", "nothing")
    git(folder, "checkout", "-q", "-f", "main")
    ran = folder.dstack("plan", "--against", "empty")
    assert ran.code == 0, ran.said
    folder.write(".dstack/pools.yml", 'requires: ">=99"\n' + POOLS)
    git(folder, "commit", "-q", "-am", "for another version")
    folder.write(".dstack/pools.yml", POOLS)
    assert folder.dstack("plan", "--against", "HEAD").code == 0
    folder.write(".dstack/pools.yml", "pols: []\n")
    (folder.root / ".dstack/link.yml").symlink_to("pools.yml")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "broken")
    git(folder, "checkout", "-q", "-b", "mended")
    git(folder, "rm", "-q", "--cached", ".dstack/link.yml")
    (folder.root / ".dstack/link.yml").unlink()
    folder.write(".dstack/pools.yml", POOLS)
    ran = folder.dstack("plan", "--against", "main")
    assert ran.code == 1
    commit = git(folder, "rev-parse", "main")[:10]
    assert f"{commit}:.dstack/pools.yml:1:1: unknown key `pols`" in ran.err
    assert f"{commit}:.dstack/link.yml:1:1: " in ran.err
    assert Folder(tmp_path / "export").write(".dstack/pools.yml", POOLS)
    ran = Folder(tmp_path / "export").dstack("plan", "--against", "main")
    assert "is not in a git repository. Run this in a clone" in ran.err


def test_gates_of_the_command(folder: Folder) -> None:
    folder.write(".dstack/runs/big.yml", "type: task\nname: big\ncommands: [x]\nresources: {cpu: 4000..}\n")
    ran = folder.dstack("plan", "--fail-on", "destroy,unmet,cost>0", "--detailed-exitcode")
    assert ran.code == 1
    assert ran.err.startswith("error: gate unmet: run big: no idle instance; 1 offer → 0 with cpu 4000..")
    assert "Plan: " in ran.out
    ran = folder.dstack("plan", "--fail-on", "unmett")
    assert (ran.code, ran.out) == (1, "")
    assert "there are destroy, cost>N, max-cost>N, pending, config" in ran.err


def test_the_comment_is_written_whole(folder: Folder) -> None:
    comment = folder.root / "out.md"
    comment.write_text("old")
    ran = folder.dstack("plan", "--markdown", "out.md", env={"HF_TOKEN": "canary-5e2d"})
    assert ran.code == 0
    assert comment.read_text().startswith("<!-- dstack-plan:demo12345678 -->\n### dstack plan: 1 pool added")
    assert list(folder.root.glob(".out*")) == []
    assert folder.dstack("plan", "--markdown", "nowhere/out.md").err.startswith("error: --markdown nowhere/out.md: No ")
    assert "is a folder; name a file" in folder.dstack("plan", "--markdown", ".").err


def test_no_secret_reaches_the_comment(folder: Folder) -> None:
    folder.write(
        ".dstack/runs/s.yml",
        "type: task\nname: s\ncommands: ['echo $A $B']\nenv: {A: '${{ secrets.HF }}', B: plain, HF_TOKEN: null}\n",
    )
    folder.write(".dstack/secrets.yml", "secrets: {HF: {env: HF_TOKEN}}\n")
    folder.write("run.yml", "type: task\nname: r\ncommands: [sleep 60]\n")
    started = folder.dstack("run", ".", "-f", "run.yml", "-y", "-d", "-e", "K=canary-77aa")
    assert started.code == 0, started.said
    for env in ({"HF_TOKEN": "canary-5e2d"}, {}):
        ran = folder.dstack("plan", "--markdown", "out.md", "--json", "--against", "main", env=env)
        assert ran.code == 0, ran.said
        assert "canary" not in (folder.root / "out.md").read_text() + ran.said


def test_a_plan_without_a_review_does_not_load_one(folder: Folder) -> None:
    code = (
        "import sys; from reconciler.cli.session import run_session; code = run_session(['plan']);"
        "print(code, [m for m in sys.modules if m.endswith(('plan_review', 'gates', 'subtract', 'render_markdown'))])"
    )
    import sys

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder.root,
        env={**os.environ, **folder.env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0 []"


def test_a_plan_assumes_the_secrets_that_this_machine_lacks(folder: Folder) -> None:
    """A runner that plans has no secrets: what needs them is in the cost and in the gates all the same."""
    folder.write(".dstack/secrets.yml", "secrets: {TOKEN: {env: NOWHERE_SET}, OTHER: {ssm: /x}}\n")
    run = "type: task\nname: {name}\nenv: {env}\ncommands: [env]\n"
    folder.write(".dstack/runs/a.yml", run.replace("{name}", "a").replace("{env}", "{A: '${{ secrets.TOKEN }}'}"))
    folder.write(".dstack/runs/b.yml", run.replace("{name}", "b").replace("{env}", "[NOWHERE_SET]"))
    folder.write(".dstack/runs/c.yml", run.replace("{name}", "c").replace("{env}", "{A: '${{ secrets.OTHER }}'}"))
    for look in ((), ("--refresh",)):
        found = json.loads(folder.dstack("plan", "--json", *look).out)
        launched = [one["why"] for one in found["actions"] if one["kind"] == "launch"]
        assert len(launched) == 2, found
        assert [one["subject"] for one in found["unmet"]] == ["run c"]  # no backend keeps it: no machine has it
        assert [one["subject"] for one in found["lacking_here"]] == ["run a", "run b"]
        (told,) = (one for one in found["warnings"] if "NOWHERE_SET" in one)
        assert told.startswith("runs a, b: needs NOWHERE_SET, not set on ")
        assert told.endswith(". The plan assumes that whoever applies it has that")
    applied = folder.dstack("apply", "-y", "-d")
    assert "needs NOWHERE_SET, not set on" in applied.said
    assert "1 launched" not in applied.said


def test_gates_of_what_the_configuration_permits() -> None:
    cost = PlanCost(pools=(PoolCost(pool="gpu", worst=Decimal(98)),), worst=Decimal(98))
    permits = plan_of(cost=cost, changes=(Change(kind="pool", name="gpu", op="change", key="nodes", old="1", new="4"),))
    assert why("max-cost>98,config,pending", permits) == ["", "pool gpu nodes", ""]
    assert why("max-cost > $50/h", permits) == ["$98.00/h with all maxima reached, above $50.00/h: gpu $98.00/h"]
    endless = plan_of(cost=PlanCost(pools=(PoolCost(pool="gpu"),), unlimited=("gpu",)))
    assert why("max-cost>1000", endless) == ["nothing limits pool gpu: set the maximum of `nodes`, or a budget"]
    unpriced = plan_of(cost=replace(cost, pools=(replace(cost.pools[0], unpriced=True),)))
    assert why("max-cost>98", unpriced) == ["cannot be ruled out: some prices are unknown"]


DEAR = """\
project: {name: demo, id: demo12345678}
backends: [{type: aws, regions: [us-east-1]}]
pools:
  - {name: bench, default: true, nodes: 0..36, instance_types: [p4d.24xlarge], max_price: 40}
"""


def test_a_change_that_only_permits_is_seen_by_reviewer_gates_and_json(folder: Folder) -> None:
    """A higher maximum starts nothing, and is worth money all the same."""
    assert folder.dstack("apply", "-y").code == 0
    git(folder, "checkout", "-q", "-b", "feature")
    folder.write(".dstack/pools.yml", DEAR)
    offline = {"DSTACK_CATALOG_URL": "off"}
    ran = folder.dstack("plan", "--against", "main", "--markdown", "plan.md", env=offline)
    assert "nodes" in ran.out
    assert "0..2 → 0..36" in ran.out
    assert re.search(r"total +\$0.00/h +\$0.00/h +≤\$1179.[0-9]+/h", ran.out), ran.out
    text = (folder.root / "plan.md").read_text()
    assert "| total | $0.00/h | $0.00/h | ≤$1179." in text
    assert "0..2 → 0..36" in text
    held_back = folder.dstack("plan", "--against", "main", "--fail-on", "max-cost>1000,config", env=offline)
    assert held_back.code == 1
    assert "error: gate max-cost>1000: $1179." in held_back.err
    assert "error: gate config: " in held_back.err
    assert folder.dstack("plan", "--against", "main", "--detailed-exitcode", env=offline).code == 2
    found = json.loads(folder.dstack("plan", "--json", env=offline).out)
    assert {
        "kind": "pool",
        "name": "bench",
        "op": "change",
        "key": "nodes",
        "old": "0..2",
        "new": "0..36",
        "note": "",
    } in (found["configuration"])
    assert found["cost"]["worst_case"] == found["cost"]["per_pool"][0]["worst_case"] > 1179
    ran = folder.dstack("apply", env=offline)
    assert ran.code == 1, "nobody approved it"
