"""What a machine is born with: keys that come from the project's key, always the same, and cloud-init's text."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from backends.boot import cloud_init
from backends.boot.cloud_init import SERVICE, TIMER, render
from backends.boot.spec import Boot, DeadMan
from backends.errors import BackendError
from reconciler.hosts.boot_keys import boot_of, endorsement, host_key_of, login_of
from reconciler.secrets.project_key import ProjectKey
from reconciler.store.folder import FolderStore
from schemas.backend_type import BackendType
from schemas.backend_types import UNKNOWN
from schemas.desired import BackendConfig
from schemas.instance import Instance
from schemas.launch import Request
from schemas.resources import Resources
from schemas.state import VERSION, Place, State

KEY = ProjectKey(bytes(range(32)))
REQUEST = Request(
    place="aws/eu-west-1",
    launch="l-abc",
    token="t",
    ids=("l-abc-0",),
    names=("cloud-0",),
    pool="cloud",
    instance_type="t3.small",
    project="demo12345678",
)


def test_the_same_launch_is_born_the_same_and_no_other(tmp_path: Path) -> None:
    assert boot_of(KEY, "l-abc") == boot_of(ProjectKey(bytes(range(32))), "l-abc")
    pairs = (host_key_of(KEY, "l-abc"), host_key_of(KEY, "l-abd"), login_of(KEY))
    assert len({*(one.public for one in pairs), host_key_of(ProjectKey(b"x" * 32), "l-abc").public}) == 4


@pytest.mark.parametrize("purpose", ["l-abc", "l-abd", ""])
def test_openssh_reads_a_derived_key(purpose: str, tmp_path: Path) -> None:
    pair = host_key_of(KEY, purpose) if purpose else login_of(KEY)
    file = tmp_path / "key"
    file.write_text(pair.private)
    file.chmod(0o600)
    read = subprocess.run(["ssh-keygen", "-y", "-f", str(file)], capture_output=True, text=True, check=True).stdout
    assert read.split()[:2] == pair.public.split()


def test_no_repr_shows_a_private_key() -> None:
    boot = boot_of(KEY, "l-abc")
    shown = f"{boot!r} {login_of(KEY)!r} {[boot]}"
    assert not [line for line in boot.host_key_private.splitlines() if line in shown]


def test_an_endorsement_is_of_one_machine_and_one_key() -> None:
    told = {
        endorsement(KEY, launch=launch, instance=instance, host_key=host_key)
        for launch in ("l-abc", "l-abd")
        for instance in ("i-1", "i-2")
        for host_key in ("ssh-ed25519 AAAA", "ssh-ed25519 AAAB")
    }
    assert len(told) == 8
    again = endorsement(KEY, launch="l-abc", instance="i-1", host_key="ssh-ed25519 AAAA root@host")
    assert again in told


def test_the_text_for_cloud_init_is_sh_and_arms_the_timer_first(tmp_path: Path) -> None:
    boot = boot_of(KEY, "l-abc")
    text = render(boot, request=REQUEST)
    assert text == render(boot, request=REQUEST)
    assert text.splitlines()[:2] == ["#cloud-boothook", "#!/bin/sh"]
    assert len(text.encode()) < UNKNOWN.user_data_limit
    (tmp_path / "user-data").write_text(text)
    subprocess.run(["dash", "-n", str(tmp_path / "user-data")], check=True)
    steps = ("--no-block start dstack-deadman.timer", "PRIVATE KEY", "useradd", "HostKey ")
    order = [text.index(step) for step in steps]
    assert order[0] == min(order)


def test_nothing_else_in_it_is_secret() -> None:
    text = render(boot_of(KEY, "l-abc"), request=REQUEST)
    assert login_of(KEY).private.splitlines()[2] not in text
    assert text.count("PRIVATE KEY") == 2


@pytest.mark.parametrize("name", ["x\nrm -rf /", "$(reboot)", "`reboot`"])
def test_a_name_runs_nothing(name: str) -> None:
    boot = Boot(host_key_private="p", host_key_public="q", authorized_keys=(), deadman=DeadMan(), user="a b")
    request = Request(
        place="aws", launch=name, token="", ids=(), names=(name,), pool=name, instance_type=name, project=name
    )
    text = render(boot, request=request)
    assert name not in text
    assert "user='a b'\n" in text


def test_a_type_says_how_its_machines_end_and_how_much_it_takes() -> None:
    boot = boot_of(KEY, "l-abc")
    kind = BackendType(name="t", power_off_program="curl -X DELETE http://vendor/self\n")
    text = render(boot, request=REQUEST, kind=kind)
    assert kind.power_off_program in text
    assert "systemctl poweroff" not in text
    size = len(text.encode())
    assert render(boot, request=REQUEST, kind=replace(kind, user_data_limit=size)) == text
    with pytest.raises(ValueError, match=f"user data of {size} bytes: {size - 1} are the most"):
        render(boot, request=REQUEST, kind=replace(kind, user_data_limit=size - 1))


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """Also without a running systemd."""
    for name, unit in (("dstack-deadman.service", SERVICE), ("dstack-deadman.timer", TIMER)):
        (tmp_path / name).write_text(unit)
    try:
        done = subprocess.run(
            ["systemd-analyze", "verify", *map(str, sorted(tmp_path.iterdir()))],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no systemd-analyze here")
    ours = [line for line in done.stderr.splitlines() if "dstack-deadman" in line]
    assert ours == []
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- whose key


def boot_here(root: Path, *, environ: dict[str, str]) -> Boot:
    from reconciler.app.connections import connector
    from reconciler.app.site import Site

    connect = connector(Site(root=root, project="demo12345678"), address="", environ=environ)
    backend = connect(BackendConfig(name="aws", type="aws", regions=("eu-west-1",)), "eu-west-1", "lineage1")
    return backend._setting.boot("l-abc")  # type: ignore[attr-defined, no-any-return]


def test_the_first_launch_makes_the_key_and_ci_never_does(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="DSTACK_PROJECT_KEY is not set, and CI never mints"):
        boot_here(tmp_path, environ={"CI": "true"})
    assert not (tmp_path / ".dstack/keys/project.key").exists()
    made = boot_here(tmp_path, environ={})
    assert oct((tmp_path / ".dstack/keys/project.key").stat().st_mode)[-3:] == "600"
    assert boot_here(tmp_path, environ={}) == made
    coded = (tmp_path / ".dstack/keys/project.key").read_text().strip()
    assert boot_here(tmp_path / "elsewhere", environ={"CI": "true", "DSTACK_PROJECT_KEY": coded}) == made


def test_no_second_key_is_made_beside_machines_of_another(tmp_path: Path) -> None:
    place = Place(name="aws/eu-west-1", config=BackendConfig(name="aws", type="aws"), region="eu-west-1")
    one = Instance(
        id="l-0-0",
        name="cloud-0",
        pool="cloud",
        backend="aws",
        place=place.name,
        resources=Resources(cpus=1, memory=1024),
    )
    state = State(version=VERSION, project="demo12345678", lineage="l" * 16, places=(place,), instances=(one,))
    FolderStore(tmp_path / ".dstack/state", "demo12345678").write(state, "")
    with pytest.raises(BackendError, match="copy it from who made it, or set DSTACK_PROJECT_KEY"):
        boot_here(tmp_path, environ={})


def machine(tmp_path: Path, *, engine: bool = False, installs: bool = True) -> dict[str, str]:
    """A folder of programs that stand in for a distribution's; what they were asked for is in `asked`."""
    programs = tmp_path / "bin"
    programs.mkdir()
    asked = tmp_path / "asked"
    made = f"printf '#!/bin/sh\\n' > {programs}/docker && chmod +x {programs}/docker"
    stubs = {
        "cloud-init": "sleep 0.2",
        "apt-get": f'case "$*" in *install*) {made if installs else "exit 100"} ;; esac',
        "systemctl": ":",
        "usermod": ":",
        "getent": "exit 0",
        "chown": ":",
        **({"podman": ":"} if engine else {}),
    }
    for name, text in stubs.items():
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {asked}\n{text}\n')
        (programs / name).chmod(0o755)
    for name in ("sh", "timeout", "mkdir", "rm", "ln", "mv", "printf", "sleep", "chmod", "env"):
        (programs / name).symlink_to(shutil.which(name) or name)
    (tmp_path / "home").mkdir()
    return {"PATH": str(programs), "user": "dstack", "home": str(tmp_path / "home")}


def booted(tmp_path: Path, env: dict[str, str]) -> Path:
    """Runs the end of the user data; gives the folder whose presence says that the machine is ready."""
    text = cloud_init._WITH_ENGINE.format(folder=".dstack-host", base=tmp_path)
    subprocess.run(["sh", "-c", text], env=env, check=True, timeout=30)
    return tmp_path / "home/.dstack-host"


def test_an_engine_is_installed_before_a_machine_for_containers_is_ready(tmp_path: Path) -> None:
    env = machine(tmp_path)
    folder = booted(tmp_path, env)
    ends = time.monotonic() + 60
    while not folder.is_dir():
        assert time.monotonic() < ends, (tmp_path / "engine.log").read_text()
        time.sleep(0.02)
    assert (tmp_path / "bin/docker").exists(), "it is there by then"
    asked = (tmp_path / "asked").read_text()
    assert "install -y --no-install-recommends docker.io" in asked
    assert "systemctl enable --now docker" in asked
    assert "usermod -aG docker dstack" in asked
    assert {one.name for one in folder.iterdir()} == {"deadman", "lease", "cleaned"}
    (tmp_path / "asked").unlink()
    booted(tmp_path, env)  # it boots again
    assert "apt-get" not in ((tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else "")


def test_a_machine_that_has_an_engine_installs_none(tmp_path: Path) -> None:
    folder = booted(tmp_path, machine(tmp_path, engine=True))
    assert folder.is_dir(), "at once"
    assert "apt-get" not in (tmp_path / "asked").read_text()


def test_where_none_can_be_installed_the_machine_is_used_all_the_same(tmp_path: Path) -> None:
    folder = booted(tmp_path, machine(tmp_path, installs=False))
    ends = time.monotonic() + 60
    while not folder.is_dir():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_only_who_runs_containers_is_born_with_that(tmp_path: Path) -> None:
    boot = boot_of(KEY, "l-abc")
    plain, boxed = render(boot, request=REQUEST), render(boot, request=replace(REQUEST, engine=True))
    assert ("docker.io" in plain, "docker.io" in boxed) == (False, True)
    assert len(boxed.encode()) < UNKNOWN.user_data_limit
    (tmp_path / "user-data").write_text(boxed)
    subprocess.run(["dash", "-n", str(tmp_path / "user-data")], check=True)
