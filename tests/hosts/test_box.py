"""How a container is begun: the engines' flags, the login, what the client's own environment may hold."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from reconciler.hosts.container_files import box_files, registry_of, split_environment
from reconciler.hosts.report import parse_report
from reconciler.hosts.runner import ContainerSpec, HostError
from tests.doubles.hosts.real_host import RealHost, an_order


def files(*commands: str, box: ContainerSpec, **changes: Any) -> dict[str, bytes]:
    order = an_order(*commands, box=box, **changes)
    return box_files(order, variables=("A",), script=b"", hostfile=b"", probe=None)


def words(text: bytes) -> list[str]:
    return [line.removeprefix('set -- "$@" ').strip("'") for line in text.decode().splitlines()]


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("ubuntu", "docker.io"),
        ("team/tool:1", "docker.io"),
        ("ghcr.io/team/tool", "ghcr.io"),
        ("localhost/tiny:1", "localhost"),
        ("10.0.0.5:5000/a@sha256:00", "10.0.0.5:5000"),
    ],
)
def test_the_registry_of_an_image(image: str, registry: str) -> None:
    assert registry_of(image) == registry


def test_a_login_is_read_by_both_engines() -> None:
    told = base64.b64encode(b"me:pa:ss").decode()
    made = files(box=ContainerSpec(image="ghcr.io/a/b", username="me", password="pa:ss"))
    assert json.loads(made["auth/config.json"]) == {"auths": {"ghcr.io": {"auth": told}}}
    hub = json.loads(files(box=ContainerSpec(image="a/b", username="me", password="pa:ss"))["auth/config.json"])[
        "auths"
    ]
    assert set(hub) == {"docker.io", "https://index.docker.io/v1/"}
    assert "auth/config.json" not in files(box=ContainerSpec(image="a/b"))


def test_what_an_image_runs_by_itself_is_left_to_it() -> None:
    made = files(box=ContainerSpec(image="x"))
    assert words(made["box.args"]) == []
    assert not {"--entrypoint", "--workdir", "--privileged", "--user"} & set(words(made["box.flags"]))


def test_an_entrypoint_is_one_word_and_the_rest_are_arguments() -> None:
    made = files(
        "train.py", "${{ run.args }}", box=ContainerSpec(image="x", entrypoint=("python3", "-u")), args=("--lr", "1 2")
    )
    flags = words(made["box.flags"])
    assert flags[flags.index("--entrypoint") + 1] == "python3"
    assert words(made["box.args"]) == ["-u", "train.py", "--lr", "1 2"]


def test_limits_are_given_where_there_are_any() -> None:
    flags = words(files(box=ContainerSpec(image="x", cpus=4, memory=2048, shm=512, privileged=True))["box.flags"])
    at = {flag: flags[flags.index(flag) + 1] for flag in ("--cpus", "--memory", "--shm-size")}
    assert at == {"--cpus": "4", "--memory": "2048m", "--shm-size": "512m"}
    assert "--privileged" in flags


def test_the_client_never_sees_a_users_path_or_engine() -> None:
    passed, reserved = split_environment({"PATH": "/x", "DOCKER_HOST": "tcp://y", "LD_PRELOAD": "z.so", "A": "b\nc"})
    assert passed == {"A": "b\nc"}
    assert reserved == b"PATH=/x\nDOCKER_HOST=tcp://y\nLD_PRELOAD=z.so\n"
    with pytest.raises(HostError, match="the value of HOME has several lines"):
        split_environment({"HOME": "/a\n/b"})


# No engine here has a GPU to give: a program that notes how it was called shows what each is asked for.
ENGINE = """\
#!/bin/sh
case $1 in
    --version) echo "{name} 1" ;;
    run) printf '%s\\n' "$@" > {notes} ;;
esac
exit 0
"""


@pytest.mark.parametrize(
    ("name", "gpus", "asked"),
    [
        ("docker", ("GPU-a", "GPU-b"), ["--gpus", '"device=GPU-a,GPU-b"']),
        ("podman", ("GPU-a", "GPU-b"), ["--device", "nvidia.com/gpu=GPU-a", "--device", "nvidia.com/gpu=GPU-b"]),
        ("docker", (), []),
    ],
)
def test_gpus_are_given_by_uuid(tmp_path: Path, name: str, gpus: tuple[str, ...], asked: list[str]) -> None:
    notes, tools = tmp_path / "notes", tmp_path / "bin"
    tools.mkdir()
    for each in ("docker", "podman"):
        text = ENGINE.format(name=each, notes=notes) if each == name else "#!/bin/sh\nexit 1\n"
        (tools / each).write_text(text)
        (tools / each).chmod(0o755)
    environ = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "DOCKER_HOST": "unix:///none"}
    host = RealHost(tmp_path / "host", environ=environ)
    assert host.over(host.start("true", box=ContainerSpec(image="x:1"), gpus=gpus)).exit_code == 0
    called = notes.read_text().splitlines()
    at = called.index("/dev/null") if "/dev/null" in called else len(called)
    found = [word for word in called[:at] if word in ("--gpus", "--device") or "GPU-" in word]
    assert found == asked
    assert called[called.index("--name") + 1].startswith("dstack-r1-0-1-0-")


HEAD = "dstack-host 1\nhost 0-0 5 9 1 -\n"


@pytest.mark.parametrize(
    ("lines", "pulling", "reason"),
    [
        ("pulling j 0 -\njob j running - - 0 r\n", "pulling", ""),
        ("pulling j 0 3\njob j running - - 0 r\n", "pulling, layer 3", ""),
        ("pulling j 2 3\njob j running - - 0 r\n", "pulling, 2 of 3 layers", ""),
        ("job j ended 137 oom:64 1 2 0 r\n", "", "out of memory: more than 64 MB"),
        ("job j ended 137 oom:0 1 2 0 r\n", "", "out of memory"),
        ("job j ended 1 image 1 2 0 r\nwhy j image x: denied\x1b[1m\n", "", "no image: image x: denied\\x1b[1m"),
    ],
)
def test_what_a_host_tells_of_images(lines: str, pulling: str, reason: str) -> None:
    report = parse_report(f"{HEAD}runtime docker\n{lines}.\n".encode(), instance="i", now=1)
    (job,) = report.jobs
    assert (report.runtime, job.pulling, job.reason) == ("docker", pulling, reason)
