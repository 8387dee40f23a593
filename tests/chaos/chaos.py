"""kill -9 at random moments over overlapping commands on real processes; then nothing may be amiss.

    python tests/chaos/chaos.py --kills 200 --seed 7

Each round starts three commands at once and kills each after its own delay. A seed replays the commands
and the delays; the moments in a program that they hit are the machine's.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from backends.local import records as local_record
from reconciler.app.site import Site
from reconciler.app.stores import blobs_of
from reconciler.store.statefile import loads
from schemas.run import RUN_ENDED, Job, Run
from schemas.state import State
from tests.doubles.commands import warm
from tests.doubles.commands.command import Folder, folder_at

PROJECT = "chaos1234567"
AT_ONCE = 3
KEPT = (".lock", "home.json")  # of a lineage, besides its instances
SETTLE = 300.0  # seconds for applies to converge at the end
DOCUMENTS = f"""\
project: {{name: chaos, id: {PROJECT}}}
pools:
  - name: bench
    default: true
    nodes: 0..4
    idle_duration: 2s
    resources: {{cpu: 1.., memory: 0.1GB.., disk: 0.1GB..}}
"""
# Each start is one line in a file that nobody else writes; each result is its log and an artifact.
BEGUN = 'echo "$DSTACK_JOB_ID" >> {counter}'
RESULT = ['echo "result of $DSTACK_JOB_ID"', 'echo "$DSTACK_JOB_ID" > result.txt']
COMMANDS = ("apply", "apply", "apply", "apply -d", "apply -d", "run -d", "run -d", "run", "stop")


def declared(counter: Path, *, rerun: int, served: bool) -> dict[str, str]:
    """Run files by name: a short task, a gang, one that fails once and one for good, and a service."""
    begun = BEGUN.format(counter=counter)
    found = {
        "short": a_run("short", begun, "sleep 0.1", *RESULT, rerun=rerun),
        "gang": a_run("gang", begun, "sleep 0.4", *RESULT, rerun=rerun, extra="nodes: 2\n"),
        "second-try": a_run(
            "second-try", begun, *RESULT, '[ "$DSTACK_ATTEMPT" -ge 2 ]', rerun=rerun,
            extra="retry: {on_events: [error], duration: 1h}\n",
        ),
        "failing": a_run("failing", begun, *RESULT, "exit 3", rerun=rerun),
    }  # fmt: skip
    if served:
        found["service"] = a_run("service", begun, *RESULT, "sleep 600", kind="service", rerun=0, extra="port: 8000\n")
    return found


def a_run(name: str, *commands: str, rerun: int = 0, kind: str = "task", extra: str = "") -> str:
    listed = "".join(f"  - |\n    {command}\n" for command in commands)
    again = f"rerun: {rerun}\n" if rerun else ""
    return f"type: {kind}\nname: {name}\n{again}{extra}artifacts: [result.txt]\ncommands:\n{listed}"


@dataclass(kw_only=True)
class Chaos:
    """`wished` are the names of runs that a `dstack run` was asked for; each is used once."""

    folder: Folder
    scratch: Path
    counter: Path
    random: random.Random
    kills: int = 0
    rounds: int = 0
    wished: list[str] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        return {**self.folder.env, "TMPDIR": str(self.scratch)}

    # ------------------------------------------------------------ rounds

    def round(self) -> str:
        """Three commands, each killed at its moment. The line that tells it."""
        self.rounds += 1
        if self.rounds % 4 == 1:
            self._edit()
        asked = [(self.random.choice(COMMANDS), self._delay()) for _ in range(AT_ONCE)]
        began = time.monotonic()
        started = [(self._start(kind), kind, began + delay, delay) for kind, delay in asked]
        told = []
        for process, kind, at, delay in sorted(started, key=lambda one: one[2]):
            told.append(f"{kind} {delay:.2f} {self._end(process, at=at)}")
        return f"round {self.rounds}: {'; '.join(told)} ({self.kills} kills)"

    def _delay(self) -> float:
        """Most of them while something is under way: a process needs no time to begin, and some 0.5 s for its work."""
        return self.random.choice([self.random.uniform(0.0, 0.2), *[self.random.uniform(0.05, 1.2)] * 3])

    def _edit(self) -> None:
        """New work for the next rounds; the service comes and goes."""
        files = declared(self.counter, rerun=self.rounds, served=self.rounds % 8 == 1)
        for name, text in files.items():
            self.folder.write(f".dstack/runs/{name}.yml", text)
        if "service" not in files:
            (self.folder.root / ".dstack/runs/service.yml").unlink(missing_ok=True)

    def _start(self, kind: str) -> warm.Started:
        return warm.start(self._arguments(kind), cwd=self.folder.root, env=self.env, stdout=subprocess.DEVNULL)

    def _arguments(self, kind: str) -> list[str]:
        verb, *flags = kind.split()
        if verb == "apply":
            return ["apply", "-y", "--allow-destroy", "bench", *flags]
        if verb == "stop" and self.wished:
            return ["stop", self.random.choice(self.wished), "-y"]
        name = f"wish-{len(self.wished) + 1}"
        self.wished.append(name)
        self.folder.write(f"{name}.yml", a_run(name, BEGUN.format(counter=self.counter), "sleep 0.3", *RESULT))
        return ["run", ".", "-f", f"{name}.yml", "-y", *flags]

    def _end(self, process: warm.Started, *, at: float) -> str:
        try:
            _, err = process.communicate(timeout=max(0.0, at - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            self.kills += 1
            return "killed"
        assert b"this is a defect" not in err, err.decode()
        assert process.returncode in (0, 1, 3), err.decode()
        return f"ended {process.returncode}"

    # ------------------------------------------------------------ afterwards

    def converge(self) -> None:
        """Plain applies, until a plan is empty and every run is over."""
        (self.folder.root / ".dstack/runs/service.yml").unlink(missing_ok=True)
        deadline = time.monotonic() + SETTLE
        while True:
            applied = self.folder.dstack("apply", "-y", "--allow-destroy", "bench", env={"TMPDIR": str(self.scratch)})
            assert applied.code == 0, applied
            planned = self.folder.dstack("plan", "--detailed-exitcode", env={"TMPDIR": str(self.scratch)})
            assert planned.code in (0, 2), planned
            state = self.state
            if planned.code == 0 and not list(under_way(state)):
                return
            assert time.monotonic() < deadline, [planned, *under_way(state)]
            time.sleep(0.2)

    @property
    def state(self) -> State:
        path = self.folder.root / f".dstack/state/{PROJECT}.yml"
        return loads(path.read_bytes(), str(path))

    def check(self) -> None:
        """Every run has one result, nothing is left over."""
        amiss = list(self._amiss())
        assert not amiss, "\n".join(amiss)

    def _amiss(self) -> Iterator[str]:
        state = self.state
        jobs = {job.id: job for attempt in state.attempts for job in attempt.jobs}
        begun = Counter(self.counter.read_text().split())
        yield from (f"{job}: nobody remembers it" for job in begun if job not in jobs)
        yield from (f"{job}: started {count} times" for job, count in begun.items() if count > 1)
        yield from (wrong for run in state.runs if (wrong := _verdict(state, run)))
        yield from (wrong for job in jobs.values() if (wrong := self._result(job, began=begun[job.id])))
        yield from (f"{one.name} is {one.phase}" for one in state.instances if one.phase != "terminated")
        yield from (f"process left: {process}" for process in self._processes())
        yield from (f"left lying: {path}" for path in self._stray())

    def _result(self, job: Job, *, began: int) -> str:
        if job.status not in ("done", "failed"):
            return "" if job.status in ("terminated", "aborted") else f"{job.id} is {job.status}"
        stored = blobs_of(Site(root=self.folder.root, project=PROJECT))
        said = stored.get(job.log).decode().count(f"result of {job.id}\n") if job.log else 0
        return "" if (began, said, bool(job.artifacts)) == (1, 1, True) else f"begun {began}, told {said}: {job}"

    def _processes(self) -> Iterator[str]:
        """Whoever has this project's home in its environment; jobs inherit it."""
        mark = f"HOME={self.folder.env['HOME']}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    yield (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it ended meanwhile
                continue

    def _stray(self) -> Iterator[str]:
        """What a command that was killed left lying about, and nobody would ever remove."""
        state = self.folder.root / ".dstack/state"
        blobs = state / "blobs"
        yield from (str(path) for path in state.rglob("*.tmp") if path.parent != blobs)  # those are swept after a day
        yield from (str(path) for path in self.scratch.iterdir())
        for lineage in (Path(self.folder.env["XDG_STATE_HOME"]) / "dstack" / PROJECT).iterdir():
            known = set(local_record.folders(lineage))
            yield from (str(path) for path in lineage.iterdir() if path not in known and path.name not in KEPT)
            yield from (f"{folder} is not ended" for folder in known if local_record.read_ended(folder) is None)
            yield from (str(path) for folder in known for path in folder.iterdir() if path.suffix != ".json")


def _verdict(state: State, run: Run) -> str:
    """What is wrong with its end, "" if nothing is. One with a successor is not tried again, or never."""
    tries = sum(attempt.run == run.id for attempt in state.attempts)
    wanted = {"second-try": ("done", 2), "failing": ("failed", 1)}.get(run.spec.name, ("done", 1))
    stopped = run.status in ("terminated", "aborted") and (run.stop_reason or run.spec.type == "service")
    if stopped or (run.status, tries) == wanted:
        return ""
    if run.superseded_by and (run.status, tries) in (("terminated", 0), ("terminated", 1), ("failed", 1)):
        return ""
    return f"{run.spec.name} is {run.status} after {tries} attempts: {run.reason}; {run}"


def under_way(state: State) -> Iterator[str]:
    yield from (f"launch {intent.id}" for intent in state.intents)
    yield from (f"{one.name} {one.phase}" for one in state.instances if one.phase != "terminated")
    yield from (f"{run.spec.name} {run.status}" for run in state.runs if run.status not in RUN_ENDED)


def chaos(path: Path, *, kills: int, seed: int, seconds: float, tell: bool = False) -> Chaos:
    """Rounds until so many kills, or `seconds` are over; then it converges and is checked."""
    scratch, counter = path / "tmp", path / "begun"
    scratch.mkdir(parents=True)
    counter.touch()
    made = Chaos(
        folder=folder_at(path, documents=DOCUMENTS),
        scratch=scratch,
        counter=counter,
        random=random.Random(seed),  # noqa: S311  (a replayable one)
    )
    ends = time.monotonic() + seconds
    while made.kills < kills and time.monotonic() < ends:
        line = made.round()
        if tell:
            print(line, flush=True)
    made.converge()
    made.check()
    return made


def main() -> int:
    asked = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    asked.add_argument("--kills", type=int, default=200)
    asked.add_argument("--seed", type=int, default=int(time.time()))
    asked.add_argument("--seconds", type=float, default=210.0, help="no round is begun after so long")
    asked.add_argument("--keep", action="store_true", help="leave the folder for a look")
    given = asked.parse_args()
    path = Path(tempfile.mkdtemp(prefix="chaos-"))
    print(f"seed {given.seed}, in {path}", flush=True)
    began = time.monotonic()
    made = chaos(path, kills=given.kills, seed=given.seed, seconds=given.seconds, tell=True)
    spent = time.monotonic() - began
    runs = dict(Counter(run.status for run in made.state.runs))
    print(f"seed {given.seed}: {made.kills} kills in {made.rounds} rounds, {spent:.0f} s; {runs}; all is well")
    if not given.keep:
        shutil.rmtree(path)
    return 0 if made.kills >= given.kills else 1


if __name__ == "__main__":
    sys.exit(main())
