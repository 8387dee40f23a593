"""`dstack pool add-ssh`: check servers, show their keys, ask, and declare them in the YAML."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backends.errors import CallFailed
from backends.ssh.backend import owner_words, take_over
from reconciler.cli.commands.pool.add_ssh_flags import AddSshAsk, hosts_of
from reconciler.cli.commands.pool.add_ssh_tables import check_lines, key_table
from reconciler.cli.commands.pool.edit import COMMIT, write_edits
from reconciler.cli.exits import Fail
from reconciler.cli.project import documents_of, ports_of, project_root, site
from reconciler.cli.terminal.streams import NoTerminal, ask, ask_typed, out, say, show, width
from reconciler.config.edit.hosts import Entry, add_hosts, said_of_all, with_hosts
from reconciler.config.edit.pools import Edit, EditRefused, create_pool, declared
from reconciler.config.files import KNOWN_HOSTS
from reconciler.config.known_hosts import read_known_hosts, with_keys
from reconciler.engine.survey_hosts import Surveyed, Trusted, survey
from reconciler.hosts.ssh.declared_hosts import SshReach, reach_from
from reconciler.system.process import who
from reconciler.text.format import counted
from schemas.desired import Desired
from schemas.host import Host, Jump, fingerprint


def add_ssh(flags: AddSshAsk) -> int:
    """0 where every destination is declared afterwards; 1 where one could not be reached, or nothing was done."""
    root = project_root()
    where = site()
    desired = documents_of(root).desired
    pool = _pool(flags, desired)
    shared = said_of_all(root / ".dstack", pool)
    hosts = hosts_of(flags, desired, pool=pool, shared=shared)
    reach = reach_from(root, who=who(), config=flags.config, family=flags.family)
    found = survey(ports_of(where), reach, hosts, trusted=_trusted(flags, root), project=where.project)
    _show(found)
    _refuse_own_pins(found, hosts, root=root)
    usable = [one for one in found if one.looked is not None]
    usable = [one for one in usable if _may_have(one, flags=flags, reach=reach, project=where.project)]
    if not usable:
        say("nothing was done")
        return 1
    homes = {host.name: each.name for each in desired.pools for host in each.hosts}
    if not _agreed(usable, pool=pool, homes=homes, yes=flags.yes):
        say("nothing was done")
        return 1
    edits = _edits(root, usable, flags=flags, pool=pool, desired=desired, shared=shared)
    write_edits(root, edits)
    new, old = _parted(usable, homes)
    out(f"{', '.join(new)}: declared in pool {pool}\n" if new else "")
    out("".join(f"{name}: declared in pool {homes[name]} already, its key is pinned\n" for name in old))
    say(COMMIT)
    return 0 if len(usable) == len(found) else 1


# ---------------------------------------------------------------- what was typed


def _pool(flags: AddSshAsk, desired: Desired) -> str:
    """The named one, else the default one; a first one is made."""
    if flags.pool:
        return flags.pool
    default = next((pool.name for pool in desired.pools if pool.default), "")
    if not default:
        raise Fail(f"no pool is the default one: --pool NAME ({', '.join(pool.name for pool in desired.pools)})")
    return default


def _trusted(flags: AddSshAsk, root: Path) -> Trusted:
    given = " ".join(flags.host_key.split()[:2])
    if given:
        try:
            fingerprint(given)
        except ValueError as error:
            raise Fail(f"--host-key: {error}") from error
    return Trusted(project=read_known_hosts(root / KNOWN_HOSTS), given=given)


# ---------------------------------------------------------------- what was found


def _show(found: Sequence[Surveyed]) -> None:
    keys = [key for one in found for key in one.keys]
    if keys:
        show(key_table(list(dict.fromkeys(keys)), width=width(sys.stdout)))
    for where in dict.fromkeys(key.authority for key in keys if key.authority):
        say(f"note: {where} trusts a certificate authority, which is not supported: each key is compared by itself")
    for one in found:
        out("".join(f"{line}\n" for line in check_lines(one)))


def _refuse_own_pins(found: Sequence[Surveyed], hosts: Sequence[Host], *, root: Path) -> None:
    """A `host_key` in the documents wins over known_hosts: another key in there would change nothing."""
    pinned = read_known_hosts(root / KNOWN_HOSTS)
    for one, host in zip(found, hosts, strict=True):
        own = host.host_key and host.host_key != pinned.key_of(host.hostname, host.port)
        for key in one.keys:
            if own and key.trust == "changed" and key.name == host.name:
                raise Fail(
                    f"{host.name}: its `host_key` in the documents pins another key; if it was set up anew, "
                    f"write there {key.key}"
                )


def _may_have(one: Surveyed, *, flags: AddSshAsk, reach: SshReach, project: str) -> bool:
    """False where it is another project's, and stays so."""
    assert one.looked is not None  # noqa: S101 - the caller keeps only those
    claim = one.looked.probed.claim
    if not claim or claim.get("project") == project:
        return True
    whose = owner_words(one.looked.probed)
    if not flags.take_over:
        say(f"{one.host.name}: {whose}; --take-over takes it")
        return False
    jobs = one.looked.probed.jobs
    say(f"{one.host.name}: {whose}, {counted(jobs, 'job')} running")
    owner = claim.get("project", "")
    try:
        agreed = (flags.yes and not jobs) or ask_typed("Its claim, its jobs and its folder there end.", word=owner)
    except NoTerminal as error:
        raise Fail(f"{one.host.name}: its {counted(jobs, 'job')} would end: that is asked at a terminal") from error
    if not agreed:
        return False
    try:
        take_over(reach, one.host)
    except CallFailed as error:
        raise Fail(str(error)) from error
    out(f"{one.host.name}: taken over from project {owner}\n")
    return True


def _parted(usable: Sequence[Surveyed], homes: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Names of those to declare, and of those that are declared."""
    names = [one.host.name for one in usable]
    return [name for name in names if name not in homes], [name for name in names if name in homes]


def _agreed(usable: Sequence[Surveyed], *, pool: str, homes: Mapping[str, str], yes: bool) -> bool:
    unsettled = [key for one in usable for key in one.keys if not key.settled]
    if yes and unsettled:
        listed = ", ".join(dict.fromkeys(key.name for key in unsettled))
        raise Fail(f"-y does not trust a key that nobody has seen ({listed}): compare it and answer, or use --host-key")
    changed = [key.name for key in unsettled if key.trust == "changed"]
    if changed:
        say(f"warning: {', '.join(changed)}: not the pinned key: was it set up anew, or is somebody between?")
    keys = "this key" if len(usable) == 1 else "these keys"
    new, old = _parted(usable, homes)
    then = [f"declare {counted(len(new), 'host')} in pool {pool}"] if new else []
    then += [f"go on with {', '.join(old)}"] if old else []
    what = f"Trust {keys} and {' and '.join(then)}?"
    try:
        return yes or ask(what)
    except NoTerminal as error:
        raise Fail("there is no terminal to ask at: -y with --host-key, or with keys in known_hosts") from error


# ---------------------------------------------------------------- what is written


def _edits(
    root: Path,
    usable: Sequence[Surveyed],
    *,
    flags: AddSshAsk,
    pool: str,
    desired: Desired,
    shared: Mapping[str, Any],
) -> tuple[Edit, ...]:
    folder = root / ".dstack"
    places = {(host.hostname, host.port or 22) for each in desired.pools for host in each.hosts}
    new = [one.host for one in usable if (one.host.hostname, one.host.port or 22) not in places]
    entries = [_entry(host, flags=flags, shared=shared) for host in new]
    edits: list[Edit] = []
    try:
        if entries and pool in declared(folder):
            edits.append(add_hosts(folder, pool, entries))
        elif entries:
            edits.append(with_hosts(create_pool(folder, pool), pool, entries))
    except EditRefused as error:
        raise Fail(str(error)) from error
    return (*edits, *_pins(root, usable))


def _entry(host: Host, *, flags: AddSshAsk, shared: Mapping[str, Any]) -> Entry:
    """What differs from what the pool says of all its hosts, so that a plain address stays one."""
    told: dict[str, Any] = {
        "port": host.port,
        "user": host.user,
        "identity_file": host.identity_file,
        "network": host.network,
        "proxy_jump": _jump_entries(host),
    }
    said = {key: value for key, value in told.items() if value and value != shared.get(key)}
    said |= {key: value for key, value in (("name", flags.name), ("region", flags.region)) if value}
    return {"hostname": host.hostname, **said} if said else host.hostname


def _jump_entries(host: Host) -> dict[str, Any] | list[dict[str, Any]]:
    """One is written alone, as most have it."""
    entries = [_jump_entry(jump) for jump in host.jumps]
    return entries[0] if len(entries) == 1 else entries


def _jump_entry(jump: Jump) -> dict[str, Any]:
    parts = {"hostname": jump.hostname, "port": jump.port, "user": jump.user, "identity_file": jump.identity_file}
    return {key: value for key, value in parts.items() if value}


def _pins(root: Path, usable: Sequence[Surveyed]) -> tuple[Edit, ...]:
    path = root / KNOWN_HOSTS
    before = path.read_text() if path.exists() else ""
    shown = dict.fromkeys((key.address, key.key) for one in usable for key in one.keys if key.trust != "known")
    after = with_keys(before, tuple(shown))
    return (Edit(path=path, before=before, after=after),) if shown and after != before else ()
