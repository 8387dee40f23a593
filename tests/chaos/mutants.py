"""`make mutants`: each promise of the core switched off, one at a time, and the tests that notice.

Each mutant is a textual change in a copy of the tree; one whose text is no longer there is an error, so that
none rots unseen. A mutant that no named test notices fails the command: the promise is then untested.

    python tests/chaos/mutants.py [NAME …]      runs all, or those named; all of them write docs/mutants.md
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "mutants.md"
LIMIT = 600  # seconds for one mutant's tests


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """`changes`: (file, text, text in its stead), the text there exactly once. `tests` as pytest takes them."""

    name: str
    off: str
    changes: tuple[tuple[str, str, str], ...]
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        name="write-ahead",
        off="launches are sent before their intent is written",
        changes=(
            (
                "reconciler/engine/decide.py",
                "            written = write(ports, target, was=stored, token=token)\n",
                "            from reconciler.state.pending_effects import Send, effects\n"
                "            from reconciler.engine.execute import execute\n"
                "            sends = [each for each in effects(target, now=ports.now()) if isinstance(each, Send)]\n"
                "            list(execute(ports, target, sends, connections=view.connections, since=since,\n"
                "                         stop=lambda: False))\n"
                "            written = write(ports, target, was=stored, token=token)\n",
            ),
        ),
        tests=("tests/engine/test_crash.py", "-k", "first-runs and not beside"),
    ),
    Mutant(
        name="close when seen",
        off="a launch is closed when the call returns",
        changes=(
            (
                "reconciler/state/record_outcomes.py",
                "memory.intents[intent.id] = replace(intent, sent=intent.sent + 1, hints=sent.hints or intent.hints)",
                "del memory.intents[intent.id]",
            ),
        ),
        tests=("tests/state/test_fold.py",),
    ),
    Mutant(
        name="not_after",
        off="an open launch is sent again for ever",
        changes=(
            ("reconciler/state/pending_effects.py", "now >= intent.request.not_after or ", ""),
            ("reconciler/engine/execute.py", "if self.ports.now() >= send.request.not_after:", "if False:"),
            ("reconciler/planner/rules/resume_launches.py", "draft.now >= request.not_after or ", ""),
        ),
        tests=("tests/state/test_effects.py", "tests/planner/test_cases.py"),
    ),
    Mutant(
        name="identity",
        off="whoever answers for a place is believed",
        changes=(
            (
                "reconciler/state/observe/merge.py",
                "if place.identity and listing.identity != place.identity:",
                "if False:",
            ),
        ),
        tests=("tests/engine/test_tick.py", "tests/state/test_absorb.py"),
    ),
    Mutant(
        name="unknown is not empty",
        off="a place that does not answer counts as one that has nothing",
        changes=(
            (
                "reconciler/state/observe/merge.py",
                "for place in state.places if not place.error and not place.forgotten}",
                "for place in state.places if not place.forgotten}",
            ),
            (
                "reconciler/state/observe/merge.py",
                "if not one.partial and not one.error and one.place in good}",
                "if not one.partial and one.place in good}",
            ),
        ),
        tests=("tests/state/test_absorb.py", "tests/engine/test_tick.py"),
    ),
    Mutant(
        name="two listings before gone",
        off="one listing without it proves an instance gone",
        changes=(
            (
                "reconciler/state/observe/listings.py",
                "        return replace(instance, missing_since=answer.at, absences=1)\n"
                "    if answer.at - instance.missing_since < between:\n"
                "        return instance\n",
                "        instance = replace(instance, missing_since=answer.at, absences=1)\n",
            ),
        ),
        tests=("tests/state/test_absorb.py", "tests/engine/test_tick.py"),
    ),
    Mutant(
        name="a forced end",
        off="`pool remove --force` waits for a machine that does not answer",
        changes=(
            (
                "reconciler/planner/rules/retire.py",
                "if draft.jobs.get(instance.id) and not beyond_reach(draft, instance):",
                "if draft.jobs.get(instance.id) and not draft.may.destroy_all:",
            ),
            ("reconciler/state/requests.py", " or instance.unreachable_since is not None or instance.forced:", ":"),
        ),
        tests=("tests/engine/test_given_up.py", "-k", "removed"),
    ),
    Mutant(
        name="an abort ends the dead",
        off="`stop -x` waits for a machine that does not answer",
        changes=(("reconciler/planner/rules/stop_attempts.py", "    end_unanswering(draft)\n", ""),),
        tests=("tests/engine/test_given_up.py", "-k", "aborted"),
    ),
    Mutant(
        name="an abort ends no others",
        off="`stop -x` terminates a machine with the runs of others",
        changes=(
            (
                "reconciler/planner/rules/end_unanswering.py",
                "    if others := _names(draft, one, aborted=False):\n",
                "    if others := []:\n",
            ),
        ),
        tests=("tests/engine/test_given_up.py", "-k", "shared"),
    ),
    Mutant(
        name="waiting ends",
        off="a command waits for ever for what cannot come",
        changes=(("reconciler/engine/until.py", "if why := stuck.for_good(", "if why := '' and stuck.for_good("),),
        tests=("tests/engine/test_waiting.py", "-k", "given_up"),
    ),
    Mutant(
        name="a missing folder is a fact",
        off="a host that answers without our folder counts as silent",
        changes=(
            (
                "reconciler/state/observe/hosts.py",
                "if report.folder_gone and instance.ready_at is not None:",
                "if False:",
            ),
        ),
        tests=("tests/state/test_absorb.py", "-k", "folder"),
    ),
    Mutant(
        name="proof of end before retry",
        off="a job on a host that does not answer is lost",
        changes=(
            ("reconciler/state/job_results.py", " if assumed or halting else {}", ""),
            ("reconciler/state/job_results.py", "assumed=attempt.run in assumed", "assumed=True"),
            ("reconciler/state/job_results.py", "if not (assumed or given_up):", "if False:"),
        ),
        tests=("tests/engine/test_tick.py", "tests/state/test_conclude.py"),
    ),
    Mutant(
        name="rebasing on a moved state",
        off="results overwrite whatever the state has become",
        changes=(
            (
                "reconciler/engine/write_state.py",
                "        except StateMoved:\n            jitter(ports, attempt)\n"
                '    raise TickRefused(f"the state moved {TRIES} times under our writes;',
                "        except StateMoved:\n            latest, token = ports.store.read()\n"
                "            return write(ports, changed, was=latest, token=token), True\n"
                '    raise TickRefused(f"the state moved {TRIES} times under our writes;',
            ),
        ),
        tests=("tests/state/test_rebase.py",),
    ),
    Mutant(
        name="the fence on hosts",
        off="a host obeys a reconciler that is behind another",
        changes=(
            ("reconciler/hosts/programs/start.sh", 'pass_fence "$3" || exit', 'pass_fence "$3" || true'),
            ("reconciler/hosts/programs/stop.sh", 'pass_fence "$2" || exit', 'pass_fence "$2" || true'),
        ),
        tests=("tests/hosts/test_runner.py", "-k", "generation or fence"),
    ),
    Mutant(
        name="the dead-man",
        off="a machine that nobody needs any more goes on",
        changes=(("backends/boot/deadman.sh", 'exec sh "$base/poweroff" $tries', "exit 0"),),
        tests=("tests/backends/boot/test_deadman.py",),
    ),
    Mutant(
        name="no reboot renews it",
        off="the dead-man's time begins anew at each boot",
        changes=(("backends/boot/deadman.sh", "    age=$((begin + up - start))", "    age=$((up - start))"),),
        tests=("tests/backends/boot/test_deadman.py",),
    ),
    Mutant(
        name="first contact",
        off="a machine that shows a key of its own is believed",
        changes=(
            (
                "reconciler/hosts/ssh/cloud_hosts.py",
                "            if error.shown and self._endorsed(instance, error.shown):",
                "            if error.shown:",
            ),
        ),
        tests=("tests/hosts/test_cloud_hosts.py", "-k", "another_key"),
    ),
    Mutant(
        name="names are no commands",
        off="a host name of a document reaches ssh, whatever stands in it",
        changes=(
            (
                "reconciler/hosts/ssh/ask_ssh.py",
                "        if fault := host_name_fault(hostname) or (user and login_fault(user)):",
                "        if fault := '':",
            ),
        ),
        tests=("tests/hosts/test_ssh_config.py", "-k", "shell"),
    ),
    Mutant(
        name="names in documents",
        off="a document may call a host by what a shell would run",
        changes=(("schemas/ssh_names.py", "    if re.fullmatch(HOST_NAME, text):", "    if True:"),),
        tests=("tests/hosts/test_ssh_words.py", "-k", "meant or says_why"),
    ),
    Mutant(
        name="names from elsewhere",
        off="an address of a cloud's listing is dialled, whatever stands in it",
        changes=(("reconciler/hosts/ssh/connections.py", "        if hop.fault:\n", "        if False:\n"),),
        tests=("tests/hosts/test_ssh_login.py", "-k", "no_name"),
    ),
    Mutant(
        name="revoked keys",
        off="a pinned key that is revoked is trusted",
        changes=(
            (
                "reconciler/hosts/ssh/connections.py",
                "        if hop.key and (where := self._here.revoked(hop, hop.key)):",
                "        if where := '':",
            ),
        ),
        tests=("tests/hosts/test_ssh_login.py", "-k", "revoked"),
    ),
    Mutant(
        name="revoked lines",
        off="lines of revoked keys are dropped when known_hosts is read",
        changes=(("reconciler/config/known_hosts.py", 'if one.marker == "@revoked" and ', "if False and "),),
        tests=("tests/hosts/test_ssh_words.py", "-k", "revoke"),
    ),
    Mutant(
        name="ignore rules without git",
        off="where git does not rule, what .gitignore names is sent",
        changes=(
            (
                "reconciler/store/blobs/bundle.py",
                'skipped=_SKIPPED, rules=(IgnoreRules(root, ".gitignore"),))',
                "skipped=_SKIPPED)",
            ),
        ),
        tests=("tests/store/test_ignored_files.py", "-k", "hold"),
    ),
    Mutant(
        name="keys stay here",
        off="a file that looks like a key is sent with the others",
        changes=(
            (
                "reconciler/store/blobs/bundle.py",
                "        and looks_secret(root, one.path, size=one.stat.st_size)\n",
                "        and False\n",
            ),
        ),
        tests=("tests/store/test_ignored_files.py", "-k", "stays"),
    ),
    Mutant(
        name="the birth key goes",
        off="the host key that user data gave stays in force",
        changes=(
            (
                "reconciler/hosts/ssh/cloud_hosts.py",
                '        new = _rotated(line, "make", derived)\n',
                '        return derived\n        new = _rotated(line, "make", derived)\n',
            ),
        ),
        tests=("tests/hosts/test_cloud_hosts.py", "-k", "first_contact"),
    ),
    Mutant(
        name="the timer's end",
        off="a run whose machine ended itself is tried again",
        changes=(
            (
                "reconciler/state/job_results.py",
                "had = one.reason.startswith(POWERED_OFF) and not attempt.held_back",
                "had = False",
            ),
        ),
        tests=("tests/state/test_lease.py",),
    ),
    Mutant(
        name="approval by intersection",
        off="a yes to one plan is a yes to any",
        changes=(
            (
                "reconciler/engine/decide.py",
                "        if view.approved is not None:\n            chosen",
                "        if False:\n            chosen",
            ),
        ),
        tests=("tests/engine/test_tick.py",),
    ),
    Mutant(
        name="approval of starts",
        off="a run that the approved plan listed as pending is started",
        changes=(
            (
                "reconciler/planner/approve.py",
                "            if runs is None or action.name in runs:\n",
                "            if True:\n",
            ),
        ),
        tests=("tests/planner/test_approve.py", "tests/engine/test_freeing.py"),
    ),
    Mutant(
        name="strict unknown fields",
        off="a field that is not known is dropped when a state is read",
        changes=(("schemas/base.py", "forbid_unknown_fields=True", "forbid_unknown_fields=False"),),
        tests=("tests/store/test_statefile.py",),
    ),
    Mutant(
        name="a key twice",
        off="of a key that stands twice in a state the last one counts",
        changes=(
            (
                "schemas/strict_json.py",
                "    if data.count(_KEYS) == again.count(_KEYS) and data.count(b'\"') == again.count(b'\"'):\n",
                "    if True:\n",
            ),
        ),
        tests=("tests/store/test_statefile.py",),
    ),
    Mutant(
        name="idle from ready",
        off="boot time is idle time",
        changes=(
            (
                "reconciler/state/status.py",
                "return max(instance.ready_at, instance.last_job_end or 0)",
                "return max(instance.created_at, instance.last_job_end or 0)",
            ),
        ),
        tests=("tests/planner/test_cases.py", "tests/engine/test_machine.py"),
    ),
    Mutant(
        name="a host's two bounds",
        off="what a job or a host dates long ago is believed",
        changes=(
            (
                "reconciler/state/observe/adopt_jobs.py",
                "    return now if said is None else min(max(said, since), now)",
                "    return now if said is None else min(said, now)",
            ),
        ),
        tests=("tests/engine/test_clocks.py", "-k", "writes_its_own_end"),
    ),
    Mutant(
        name="kept from its writing",
        off="a result that comes home late is forgotten at once",
        changes=(
            (
                "reconciler/state/prune.py",
                "max(run.finished_at or run.submitted_at, run.settled_at or 0) < before",
                "(run.finished_at or run.submitted_at) < before",
            ),
        ),
        tests=("tests/state/test_clocks.py",),
    ),
    Mutant(
        name="prune under the guard",
        off="what is old by our clock is forgotten while two clocks disagree",
        changes=(
            (
                "reconciler/engine/clock_guard.py",
                "    if clock.reading.apart:\n        return calm\n    kept = prune",
                "    kept = prune",
            ),
        ),
        tests=("tests/engine/test_clocks.py", "-k", "hosts_alone_contradict"),
    ),
    Mutant(
        name="one host's offset",
        off="the clock of one host is that of every place",
        changes=(
            (
                "reconciler/state/observe/clocks.py",
                "    return ClockReading(places=nearest, shifts=told)",
                "    return ClockReading(off=min(nearest.values(), key=abs, default=0), places=nearest)",
            ),
        ),
        tests=("tests/engine/test_clocks.py", "-k", "clock_of_one_host"),
    ),
    Mutant(
        name="a jump of our clock",
        off="where no place tells the time, our clock is right whatever it jumped",
        changes=(
            (
                "reconciler/state/observe/clocks.py",
                "    if jumped and not proven:",
                "    if jumped and jumped is None:",
            ),
        ),
        tests=("tests/engine/test_clocks.py", "-k", "wrong_clock_of_ours and uptime"),
    ),
    Mutant(
        name="a step in an apply",
        off="a step of our clock while an apply runs dates what it writes",
        changes=(
            (
                "reconciler/engine/pass_clock.py",
                "        return int(self._began + self._ports.clock())",
                "        return self._ports.now()",
            ),
        ),
        tests=("tests/engine/test_clocks.py", "-k", "steps_in_the_middle"),
    ),
    Mutant(
        name="reservation for gangs",
        off="what was made for a gang serves whoever comes",
        changes=(
            (
                "reconciler/planner/placement/at_hand.py",
                "        if one.reserved_for:\n",
                "        if False:\n",
            ),
        ),
        tests=("tests/planner/test_cases.py",),
    ),
    Mutant(
        name="held for several nodes",
        off="what a run of several nodes waits for serves whoever comes",
        changes=(
            (
                "reconciler/planner/rules/hold_machines.py",
                "        at, slots, chosen = found\n",
                '        return ""\n        at, slots, chosen = found\n',
            ),
        ),
        tests=("tests/planner/test_cases.py", "-k", "hold_"),
    ),
    Mutant(
        name="replaced one by one",
        off="the old version of a service stops before the new one is ready",
        changes=(
            (
                "reconciler/planner/rules/roll_services.py",
                "    ready = _ready(draft, newer)\n    return 0 if ready",
                "    ready = 99\n    return 0 if ready",
            ),
        ),
        tests=("tests/planner/test_cases.py", "-k", "service_changed"),
    ),
    Mutant(
        name="one port, one job",
        off="two jobs of one host may have the same port",
        changes=(
            (
                "reconciler/planner/placement/host_ports.py",
                '    if not ports or not host_of(draft, machine):\n        return ""\n',
                '    return ""\n',
            ),
        ),
        tests=("tests/planner/test_cases.py", "-k", "ports_"),
    ),
    Mutant(
        name="the end of a log",
        off="the end of a log that is too long is dropped",
        changes=(
            (
                "reconciler/hosts/programs/keep_log.sh",
                '        done | tail -c "$most"\n',
                "        done > /dev/null\n",
            ),
        ),
        tests=("tests/hosts/test_supervisor.py", "-k", "of_a_long_log"),
    ),
    Mutant(
        name="pairing of launches and runs",
        off="what was launched for one run serves whoever comes first",
        changes=(
            (
                "reconciler/planner/placement/at_hand.py",
                "                if run in waiting:\n",
                "                if False:\n",
            ),
        ),
        tests=("tests/planner/test_cases.py", "-k", "pairs"),
    ),
    Mutant(
        name="results before the plan",
        off="a result is stored after the plan that could use its instance",
        changes=(
            (
                "reconciler/engine/tick.py",
                "        if not found or self.ask.hasty or self._over():\n",
                "        if True:\n",
            ),
        ),
        tests=("tests/engine/test_freeing.py",),
    ),
    Mutant(
        name="an end that is near",
        off="a new instance is launched beside one that is free before it",
        changes=(
            (
                "reconciler/planner/placement/freeing.py",
                "            return None if late else CertainEnd(None)\n",
                "            return None\n",
            ),
        ),
        tests=("tests/planner/test_cases.py", "-k", "frees"),
    ),
    # Promises of the laws besides: each would otherwise rest on tests that nobody has seen fail.
    Mutant(
        name="an older checkout",
        off="documents from a commit behind the applied one replace it",
        changes=(
            ("reconciler/state/authority.py", "    if facts.behind:\n", "    if False:\n"),
            (
                "reconciler/state/authority.py",
                "if mine.commit and any(each.commit == mine.commit for each in history):",
                "if False:",
            ),
        ),
        tests=("tests/state/test_authority.py", "tests/engine/test_machine.py"),
    ),
    Mutant(
        name="stays destroyed",
        off="the next apply creates a destroyed project again",
        changes=(("reconciler/engine/decide.py", "        if self.ask.revive:\n", "        if True:\n"),),
        tests=("tests/engine/test_tick.py",),
    ),
    Mutant(
        name="a git that fails",
        off="a repository that git does not read counts as a folder without git",
        changes=(("reconciler/state/authority.py", "    if facts.failed:\n", "    if False:\n"),),
        tests=("tests/state/test_authority.py",),
    ),
    Mutant(
        name="a restored backup",
        off="a state older than the world's tags is believed",
        changes=(("reconciler/state/observe/generations.py", "    if not newer:\n", "    if True:\n"),),
        tests=("tests/state/test_absorb.py", "tests/engine/test_tick.py"),
    ),
    Mutant(
        name="a copied folder",
        off="a copy of a project's folder uses the original's instances on this machine",
        changes=(
            (
                "backends/local/homes.py",
                "    return known.state_address if _holds(",
                '    return "" if _holds(',
            ),
        ),
        tests=("tests/backends/local/test_backend.py",),
    ),
    Mutant(
        name="a missing state",
        off="where there is no state there are no instances",
        changes=(
            (
                "reconciler/engine/begin.py",
                "        _refuse_living(ports, everywhere(ports, asked, desired))\n",
                "        pass\n",
            ),
        ),
        tests=("tests/engine/test_tick.py",),
    ),
    Mutant(
        name="grace of leftovers",
        off="a leftover is removed at first sight",
        changes=(("reconciler/planner/rules/remove_leftovers.py", "draft.now - one.since >= GRACE", "True"),),
        tests=("tests/engine/test_unowned_leftovers.py",),
    ),
    Mutant(
        name="an absent file",
        off="a pool that was removed from the configuration ends without being named",
        changes=(
            (
                "reconciler/planner/rules/retire.py",
                "    if not pool_may_go(draft, instance):\n        return None\n",
                "",
            ),
        ),
        tests=("tests/planner/test_cases.py",),
    ),
    Mutant(
        name="told to end",
        off="a job that exits with 0 after it was told to end is done",
        changes=(
            (
                "reconciler/state/job_results.py",
                "    if job.exit_code == 0 and not job.interrupted and not job.reason:\n",
                "    if job.exit_code == 0 and not job.interrupted:\n",
            ),
        ),
        tests=("tests/state/test_conclude.py",),
    ),
    Mutant(
        name="once per content",
        off="a task whose record is gone runs again in spite of its done-marker",
        changes=(
            (
                "reconciler/planner/rules/declared_runs.py",
                'if spec.type != "service" and (spec.name, spec.hash) in draft.world.done:',
                "if False:",
            ),
        ),
        tests=("tests/planner/test_cases.py",),
    ),
    Mutant(
        name="started once for ever",
        off="a job that was claimed before is started again",
        changes=(
            (
                "reconciler/hosts/programs/start.sh",
                'if [ -d "claims/$job" ] || [ -d "spent/$job" ]; then',
                "if false; then",
            ),
            ("reconciler/hosts/programs/start.sh", """if ! mkdir "claims/$job" 2>/dev/null; then""", "if false; then"),
            (
                "reconciler/hosts/programs/start.sh",
                """if [ -d "spent/$job" ]; then\n    rmdir""",
                "if false; then\n    rmdir",
            ),
        ),
        tests=("tests/hosts/test_supervisor.py", "-k", "once or at_once"),
    ),
    Mutant(
        name="start of a short job",
        off="a node that ends before its supervisor looks has no start",
        changes=(("reconciler/hosts/programs/supervisor.sh", "    begin_late\n", ""),),
        tests=("tests/planner/test_gang.py", "-k", "supervisor_slept or released"),
    ),
    Mutant(
        name="a stop waits for the whole container",
        off="the end of a container's first program ends the others",
        changes=(("reconciler/hosts/container_files.py", "while kill -0 -1 2> /dev/null; do\n", "while false; do\n"),),
        tests=("tests/hosts/test_stop_waits.py", "-k", "container_has_its_time and podman and launcher"),
    ),
    Mutant(
        name="what saves is let live",
        off="a program that a handler of TERM begins is sent TERM, too",
        changes=(
            (
                "reconciler/hosts/programs/supervisor.sh",
                'if [ -z "$told" ] || ! answers "$pid"; then',
                "if true; then",
            ),
        ),
        tests=("tests/hosts/test_stop_waits.py", "-k", "begun_to_save and process and podman"),
    ),
    Mutant(
        name="a retry goes on",
        off="a second attempt has nothing of the first",
        changes=(("reconciler/hosts/programs/supervisor.sh", "[ ! -f restored ] || restore", "true || restore"),),
        tests=("tests/hosts/test_restore.py", "-k", "before_setup"),
    ),
    Mutant(
        name="a retry takes its own node's artifacts",
        off="every node of a second attempt gets the artifacts of one",
        changes=(("reconciler/state/job_results.py", "if job.rank == rank and job.artifacts", "if job.artifacts"),),
        tests=("tests/state/test_attempts.py",),
    ),
    Mutant(
        name="results stay here",
        off="what dstack fetched is sent with the next run",
        changes=(
            (
                "reconciler/store/blobs/bundle.py",
                "    entries = _without_fetched(entries, root=root, files=files, told=told)\n",
                "",
            ),
        ),
        tests=("tests/store/test_fetched.py",),
    ),
    Mutant(
        name="collected before it goes",
        off="an instance with a result that is not home yet is free",
        changes=(
            (
                "schemas/run.py",
                'LIVE_JOB = frozenset({"assigned", "running", "ended"})',
                'LIVE_JOB = frozenset({"assigned", "running"})',
            ),
        ),
        tests=("tests/planner/test_cases.py", "tests/engine/test_machine.py"),
    ),
    Mutant(
        name="shares of an instance",
        off="a GPU is handed out again while a run has it",
        changes=(
            (
                "reconciler/planner/placement/blocks.py",
                "gone = {gpu for job in jobs for gpu in job.gpus}",
                "gone = set()",
            ),
        ),
        tests=("tests/planner/test_cases.py",),
    ),
    Mutant(
        name="a lost GPU",
        off="a GPU that its host has no more is handed out",
        changes=(
            (
                "reconciler/planner/placement/blocks.py",
                "            gone |= lost_gpus(machine)\n",
                "            pass\n",
            ),
        ),
        tests=("tests/planner/test_cases.py",),
    ),
    Mutant(
        name="the brake",
        off="any number of ends that were only inferred is done at once",
        changes=(
            (
                "reconciler/planner/rules/mass_termination_guard.py",
                "    if draft.may.mass_destroy:\n",
                "    if True:\n",
            ),
        ),
        tests=("tests/planner/test_cases.py",),
    ),
    # Of AWS: what EC2 is asked for, and what its answers are taken for.
    Mutant(
        name="one token",
        off="RunInstances is sent without the launch's own token",
        changes=(("backends/aws/run_instances.py", '        "ClientToken": request.token,\n', ""),),
        tests=("tests/backends/aws/test_backend.py", "-k", "same_request"),
    ),
    Mutant(
        name="all or none",
        off="EC2 may make a part of a gang",
        changes=(("backends/aws/run_instances.py", '"MinCount": len(request.ids),', '"MinCount": 1,'),),
        tests=("tests/backends/aws/test_backend.py", "-k", "no_capacity or gang"),
    ),
    Mutant(
        name="max_price at EC2",
        off="EC2 is not told what a person will pay at most",
        changes=(("backends/aws/run_instances.py", 'spot["MaxPrice"] = f"{request.max_price:f}"', "pass"),),
        tests=("tests/backends/aws/test_ticks.py", "-k", "max_price"),
    ),
    Mutant(
        name="IMDSv2",
        off="metadata are read without a token",
        changes=(("backends/aws/run_instances.py", '"HttpTokens": "required"', '"HttpTokens": "optional"'),),
        tests=("tests/backends/aws/test_backend.py", "-k", "everything_goes_with_it"),
    ),
    Mutant(
        name="disks go along",
        off="the root volume outlives its machine",
        changes=(
            (
                "backends/aws/run_instances.py",
                '"VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True,',
                '"VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": False,',
            ),
        ),
        tests=("tests/backends/aws/test_backend.py", "-k", "everything_goes_with_it"),
    ),
    Mutant(
        name="runpod-words-of-its-own",
        off="an error of a proxy counts as RunPod's refusal",
        changes=(
            (
                "backends/runpod/account.py",
                'if not isinstance(body["title"], str) or not isinstance(body["status"], int):\n        return ""',
                'if "detail" not in body:\n        return "problem"',
            ),
        ),
        tests=("tests/backends/runpod", "-k", "lost or another_404"),
    ),
    Mutant(
        name="runpod-stopped-bills",
        off="a stopped pod that goes on billing counts as terminated",
        changes=(("backends/runpod/backend.py", '"EXITED": "stopped"', '"EXITED": "ended"'),),
        tests=("tests/backends/runpod", "-k", "phase or stopped"),
    ),
    Mutant(
        name="lambda-adopts-a-mark",
        off="a mark that Lambda lists already is bought again",
        changes=(
            (
                "backends/lambda_cloud/backend.py",
                "if (there := self._known(request, id)) is not None:",
                'if (there := self._known(request, id) and "") is not None and there:',
            ),
        ),
        tests=("tests/backends/lambda_cloud",),
    ),
    Mutant(
        name="lambda-ends-each-alone",
        off="one id that Lambda does not know keeps all others of the same request alive",
        changes=(("backends/lambda_cloud/backend.py", "or len(ids) == 1:", "or len(ids) >= 1:"),),
        tests=("tests/backends/lambda_cloud",),
    ),
    Mutant(
        name="lambda-attaches-our-key-alone",
        off="a stranger's key of our name opens Lambda's machines",
        changes=(
            (
                "backends/lambda_cloud/account.py",
                'if own is not None and _same(own.get("public_key"), public):',
                "if own is not None:",
            ),
        ),
        tests=("tests/backends/lambda_cloud",),
    ),
    Mutant(
        name="lambda-account-not-key",
        off="another Lambda account gets a launch that was prepared for the first",
        changes=(("backends/lambda_cloud/backend.py", "if self.identity() != account:", "if False:"),),
        tests=("tests/backends/lambda_cloud",),
    ),
    Mutant(
        name="vast-proves-what-was-left-gone",
        off="a refusal at Vast.ai is believed although the contract that it made is still there",
        changes=(("backends/vastai/backend.py", "if self._account.contract(contract) is not None:", "if False:"),),
        tests=("tests/backends/vastai", "-k", "left"),
    ),
    Mutant(
        name="vast-adopts-a-mark",
        off="a mark that Vast.ai lists already is bought again",
        changes=(("backends/vastai/backend.py", "        if there:\n", "        if False:\n"),),
        tests=("tests/backends/vastai", "-k", "adopted"),
    ),
    Mutant(
        name="vast-counts-its-listing",
        off="a listing of Vast.ai that lacks contracts counts as all of them",
        changes=(("backends/vastai/account.py", "len(found) < counted:", "False:"),),
        tests=("tests/backends/vastai", "-k", "counted"),
    ),
    Mutant(
        name="vast-starts-or-nothing",
        off="a contract of Vast.ai that cannot start waits, and bills",
        changes=(("backends/vastai/backend.py", '"cancel_unavail": True', '"cancel_unavail": False'),),
        tests=("tests/backends/vastai", "-k", "at_once or bid"),
    ),
    Mutant(
        name="vast-lost-host-is-unknown",
        off="a host of Vast.ai that is lost ends what ran there",
        changes=(
            (
                "backends/vastai/backend.py",
                'return "running", False, "" if actual == "running"',
                'return "ended" if actual == "offline" else "running", False, "" if actual == "running"',
            ),
        ),
        tests=("tests/backends/vastai", "-k", "status"),
    ),
    Mutant(
        name="one account",
        off="a launch that was prepared for another account is sent",
        changes=(("backends/aws/backend.py", 'if self.identity() != inputs["account"]:', "if False:"),),
        tests=("tests/backends/aws/test_backend.py", "-k", "other_credentials"),
    ),
    Mutant(
        name="endpoints are confirmed",
        off="an endpoint is used before it is applied",
        changes=(("schemas/endpoint.py", "or endpoint == confirmed:", "or True:"),),
        tests=("tests/cli/test_endpoint_guard.py", "-k", "before_it_is_applied"),
    ),
    Mutant(
        name="a refusal is believed",
        off="a refusal is believed whatever an earlier request made",
        changes=(
            (
                "backends/aws/backend.py",
                "        if found:\n            return TryLater(",
                "        if False:\n            return TryLater(",
            ),
            ("backends/aws/backend.py", "return error if first else TryLater(", "return error if True else TryLater("),
        ),
        tests=("tests/backends/aws/test_backend.py", "-k", "believed_only"),
    ),
    Mutant(
        name="every page",
        off="a page of a listing that fails counts as its end",
        changes=(
            (
                "backends/aws/errors.py",
                '        page = ask(client, operation, **parameters, **({"NextToken": token} if token else {}))\n',
                "        try:\n"
                '            page = ask(client, operation, **parameters, **({"NextToken": token} if token else {}))\n'
                "        except TryLater:\n"
                "            return\n",
            ),
        ),
        tests=("tests/backends/aws/test_capacity.py", "-k", "halfway"),
    ),
    Mutant(
        name="ending is not ended",
        off="a machine that is shutting down counts as ended",
        changes=(("backends/aws/describe_instances.py", '"shutting-down": "ending"', '"shutting-down": "ended"'),),
        tests=("tests/backends/aws/test_ticks.py", "-k", "terminating_stays"),
    ),
    Mutant(
        name="NotFound is no end",
        off="one id that EC2 does not know keeps the others of its call from their end",
        changes=(("backends/aws/terminate_instances.py", "batches += [known] if known else []", "pass"),),
        tests=("tests/backends/aws/test_backend.py", "-k", "not_known_keeps"),
    ),
    Mutant(
        name="our project alone",
        off="what carries another project's tag is taken for ours",
        changes=(
            (
                "backends/aws/tags.py",
                'return [{"Name": f"tag:{PROJECT}", "Values": [project]}]',
                'return [{"Name": "tag-key", "Values": [PROJECT]}]',
            ),
        ),
        tests=("tests/backends/aws/test_backend.py", "tests/cli/test_gc.py", "-k", "another_project or TestAws"),
    ),
    Mutant(
        name="capacity by purchase",
        off="what is sold out as spot counts as sold out on demand",
        changes=(("reconciler/state/capacity_backoff.py", "        spot=request.spot,\n", ""),),
        tests=("tests/backends/aws/test_ticks.py", "-k", "sold_out"),
    ),
    Mutant(
        name="throttling is no lack",
        off="a throttled launch counts as one without capacity",
        changes=(("backends/aws/errors.py", '"RequestLimitExceeded": "later"', '"RequestLimitExceeded": "capacity"'),),
        tests=("tests/backends/aws/test_backend.py", "-k", "throttling"),
    ),
    Mutant(
        name="a write once",
        off="a creation over HTTP that was not answered is sent again",
        changes=(
            (
                "backends/http.py",
                "        return self._once(Call(method=method, path=path, body=body, empty=empty), deadline)\n",
                "        call = Call(method=method, path=path, body=body, empty=empty)\n"
                "        try:\n"
                "            return self._once(call, deadline)\n"
                "        except TryLater:\n"
                "            return self._once(call, deadline)\n",
            ),
        ),
        tests=("tests/backends/test_http.py", "-k", "sent_once"),
    ),
    Mutant(
        name="a page is no answer",
        off="a success without JSON counts as an empty answer",
        changes=(
            (
                "backends/http_answers.py",
                "    content = _content(raw)\n    if array and",
                "    content = _content(raw) or {}\n    if array and",
            ),
        ),
        tests=("tests/backends/test_http_answers.py", "-k", "no_plain_answer"),
    ),
    Mutant(
        name="only the table refuses",
        off="an error that no table has counts as a refusal",
        changes=(("backends/http_answers.py", 'meaning=meaning or ""', 'meaning=meaning or "permanent"'),),
        tests=("tests/backends/test_http_answers.py", "-k", "table_says"),
    ),
    Mutant(
        name="a mark of ours",
        off="machines of another project count as ours by their names",
        changes=(
            (
                "backends/naming.py",
                "    if found is None or (project and found[1] != project8(project)):\n",
                "    if found is None:\n",
            ),
        ),
        tests=("tests/backends/test_naming.py", "-k", "another_project"),
    ),
    Mutant(
        name="a look-up's trouble",
        off="a throttled look-up before a launch counts as a lack of capacity",
        changes=(
            (
                "reconciler/engine/prepare.py",
                "    if not isinstance(error, BackendError):\n",
                "    error = error if isinstance(error, BackendError) else NoCapacity(str(error))\n"
                "    if not isinstance(error, BackendError):\n",
            ),
        ),
        tests=("tests/engine/test_tick.py", "-k", "throttled_look_up"),
    ),
    Mutant(
        name="sent once",
        off="a request that no token marks is sent again by the next apply",
        changes=(
            (
                "reconciler/state/pending_effects.py",
                "        if scheduled(kind) and intent.id not in sent_here:\n",
                "        if False:\n",
            ),
        ),
        tests=("tests/engine/test_launch_shapes.py", "-k", "never_sent_again"),
    ),
    Mutant(
        name="a removed rule",
        off="an autoscale rule that a command removed leaves every type allowed",
        changes=(
            (
                "reconciler/state/autoscale_rules.py",
                "    exist = bool(caps) or cleared or spoken or desired",
                "    exist = bool(caps) or cleared or desired",
            ),
        ),
        tests=("tests/planner/test_autoscale.py",),
    ),
    Mutant(
        name="a confirmed price",
        off="what costs more than was confirmed is launched where what was confirmed has no price",
        changes=(
            (
                "reconciler/planner/placement/offer_search.py",
                "        if (ceiling is None and not unpriced) or offer.purchase in unpriced:\n",
                "        if ceiling is None or offer.purchase in unpriced:\n",
            ),
        ),
        tests=("tests/planner/test_cases.py", "-k", "unpriced"),
    ),
    Mutant(
        name="what a type has",
        off="a rebuilt instance has no resources until its host tells them",
        changes=(
            (
                "reconciler/state/observe/type_facts.py",
                "    if not lacking:\n        return state\n",
                "    if lacking or True:\n        return state\n",
            ),
        ),
        tests=("tests/state/test_rebuild.py",),
    ),
    Mutant(
        name="never ready, later and later",
        off="machines that are never ready are bought again at once",
        changes=(
            (
                "reconciler/planner/rules/scale_up.py",
                "        if backoff is None or self.draft.now >= backoff.until or (",
                "        if backoff is None or self.draft.now >= backoff.at or (",
            ),
        ),
        tests=("tests/engine/test_launch_backoff.py",),
    ),
    Mutant(
        name="an edited idle duration",
        off="an edited `idle_duration` reaches no living instance",
        changes=(
            (
                "reconciler/planner/rules/pool_edits.py",
                "        if one.idle_source not in of_pool or one.idle_duration == duration:\n",
                "        if one.idle_source in of_pool or one.idle_duration == duration:\n",
            ),
        ),
        tests=("tests/planner/test_pool_edits.py",),
    ),
    Mutant(
        name="a failed request",
        off="what `pool add` asked for is launched again after it failed without a retry",
        changes=(
            (
                "reconciler/state/relaunch/end_requests.py",
                "    return by_name or not retries(wish, reason=one.reason, now=now)\n",
                "    return by_name\n",
            ),
        ),
        tests=("tests/engine/test_added_instances.py",),
    ),
    Mutant(
        name="a removed request",
        off="an instance that was removed while it started is launched again",
        changes=(
            (
                "reconciler/state/requests.py",
                "    return leave_request(state, instance.id)\n",
                "    return state\n",
            ),
        ),
        tests=("tests/engine/test_added_instances.py",),
    ),
    Mutant(
        name="a late refusal",
        off="a refusal that comes after the request was accepted is forgotten",
        changes=(
            (
                "reconciler/state/observe/listings.py",
                "    return replace(state, capacity=shun(state.capacity, merged(found))) if found else state\n",
                "    return state\n",
            ),
        ),
        tests=("tests/engine/test_launch_shapes.py", "-k", "late_refusal"),
    ),
    Mutant(
        name="throttled is not refused",
        off="a launch that was throttled counts as refused",
        changes=(
            (
                "reconciler/engine/execute.py",
                "Unknown(why=str(error), retry_after=error.retry_after))",
                'refusal_of(__import__("backends.errors").errors.NoCapacity(str(error))))',
            ),
        ),
        tests=("tests/engine/test_launch_shapes.py", "-k", "throttling or lost_answer"),
    ),
    Mutant(
        name="stopped is ended",
        off="a machine that is powered off goes on billing",
        changes=(
            ("reconciler/state/observe/listings.py", '        case "stopped":\n', '        case "unheard of":\n'),
        ),
        tests=("tests/engine/test_launch_shapes.py", "-k", "stopped_machine"),
    ),
    Mutant(
        name="rules expire",
        off="the rule that lets us in has no end",
        changes=(("backends/aws/security_groups.py", 'f"dstack until {until}"', '"dstack declared"'),),
        tests=("tests/backends/aws/test_backend.py", "-k", "only_who_ticks"),
    ),
    Mutant(
        name="a reservation's own",
        off="a full reservation keeps everybody from its type",
        changes=(
            (
                "reconciler/planner/placement/known_refusals.py",
                "(each.place, each.instance_type, each.zone, each.spot, each.reservation): each",
                '(each.place, each.instance_type, each.zone, each.spot, ""): each',
            ),
        ),
        tests=("tests/backends/aws/test_capacity.py", "-k", "reservation_that_is_full"),
    ),
    Mutant(
        name="an orphan without a pool",
        off="an orphan's end counts as the removal of its pool, and needs permission",
        changes=(
            (
                "reconciler/cli/commands/plan/approval.py",
                "        if isinstance(one, Terminate) and one.inferred:\n            continue\n",
                "",
            ),
        ),
        tests=("tests/engine/test_orphans_without_pool.py",),
    ),
    Mutant(
        name="written as read",
        off="a state that no reader takes is written",
        changes=(
            (
                "reconciler/store/statefile.py",
                "    _refuse_to_write(state)\n    try:",
                "    try:",
            ),
        ),
        tests=(
            "tests/store/test_statefile.py",
            "-k",
            "no_reader_would_take",
        ),
    ),
    Mutant(
        name="two backends of one account",
        off="each place judges alone whose a machine is",
        changes=(
            (
                "reconciler/state/observe/listing_scope.py",
                "    if not place.identity:\n",
                "    if place.name:\n",
            ),
        ),
        tests=(
            "tests/engine/test_one_account.py",
            "-k",
            "two_backends or garbage",
        ),
    ),
    Mutant(
        name="the older of two",
        off="of two machines with one mark the newer is the instance",
        changes=(
            (
                "reconciler/state/observe/sightings.py",
                'age = (seen.phase == "ended", *age_of(seen))',
                'age = (seen.phase == "ended", -age_of(seen)[0], external_id)',
            ),
        ),
        tests=("tests/engine/test_one_account.py",),
    ),
    Mutant(
        name="a zone's refusal",
        off="a zone that was refused is asked again where the place picks it anew",
        changes=(
            (
                "reconciler/engine/prepare.py",
                "        elif again := next((one for one in refused if one.zone == answer.request.zone), None):",
                "        elif again := next((one for one in refused if not one.zone), None):",
            ),
        ),
        tests=("tests/engine/test_launch_tries.py",),
    ),
    Mutant(
        name="a cap on requests",
        off="one apply sends launch requests without end",
        changes=(
            (
                "reconciler/engine/decide.py",
                "        chosen, notes = within(chosen, sent=view.sent)\n",
                "        chosen, notes = within(chosen, sent=0)\n",
            ),
        ),
        tests=("tests/engine/test_launch_tries.py",),
    ),
)


def main(names: list[str]) -> int:
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    if unknown := set(names) - {mutant.name for mutant in MUTANTS}:
        raise SystemExit(f"no mutant {', '.join(sorted(unknown))}; there are {', '.join(m.name for m in MUTANTS)}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        _refuse_red(_copy(Path(folder, "whole")), chosen)
        for mutant in chosen:
            red = _noticed(mutant, _copy(Path(folder, mutant.name.replace(" ", "-"))))
            rows.append((mutant, red))
            print(f"{mutant.name:26} {red or 'SURVIVED: no test noticed'}", flush=True)
    if not names:
        TABLE.write_text(_table(rows))
    return 0 if all(red for _, red in rows) else 1


def _refuse_red(tree: Path, chosen: list[Mutant]) -> None:
    """A test that is red without a mutant notices nothing."""
    for tests in dict.fromkeys(mutant.tests for mutant in chosen):
        if red := _red(tree, tests):
            raise SystemExit(f"{red} is red without any mutant")


def _copy(to: Path) -> Path:
    """The tree as git has it, edits included."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    return to


def _noticed(mutant: Mutant, tree: Path) -> str:
    """The first test that turned red under it; "" where none did."""
    for name, text, instead in mutant.changes:
        source = (tree / name).read_text()
        if source.count(text) != 1:
            raise SystemExit(f"{mutant.name}: its text is {source.count(text)} times in {name}; it no longer applies")
        (tree / name).write_text(source.replace(text, instead))
    return _red(tree, mutant.tests)


def _red(tree: Path, tests: tuple[str, ...]) -> str:
    """The first test that is red in this tree; "" where all are green."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=tree,
        env=_environment(tree),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(tests)} could not be run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    found = re.search(r"^FAILED (.+?)(?: - |$)", done.stdout, re.MULTILINE)
    return found.group(1).replace("`", "'") if done.returncode == 1 and found else ""


def _environment(tree: Path) -> dict[str, str]:
    """The copy's packages before the installed ones; the same examples every time."""
    return {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "HYPOTHESIS_PROFILE": "ci"}


def _table(rows: list[tuple[Mutant, str]]) -> str:
    lines = [
        "# Mutants",
        "",
        "Each promise of the core switched off, one at a time, in a copy of the tree (`make mutants`), and the first",
        "test that turned red. Written by `tests/chaos/mutants.py`.",
        "",
        "| promise | switched off | noticed by |",
        "|---|---|---|",
        *(f"| {mutant.name} | {mutant.off} | `{red}` |" if red else f"| {mutant.name} | {mutant.off} | **nobody** |"
          for mutant, red in rows),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
