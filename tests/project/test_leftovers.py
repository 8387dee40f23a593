"""What a killed test process left in /tmp goes with the next one; nothing else does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worlds import leftovers

MAKES = """
import sys, time
from pathlib import Path
from tests.worlds import leftovers
print(leftovers.folder_of_ours(parent=Path(sys.argv[1])), flush=True)
time.sleep(600)
"""


def test_only_a_dead_makers_folder_goes(tmp_path: Path) -> None:
    maker = subprocess.Popen(
        [sys.executable, "-c", MAKES, str(tmp_path)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )
    assert maker.stdout is not None
    made = Path(maker.stdout.readline().decode().strip())
    (made / "deep").mkdir()
    mine = leftovers.folder_of_ours(parent=tmp_path)
    try:
        assert leftovers.sweep(tmp_path) == []
    finally:
        os.kill(maker.pid, signal.SIGKILL)
        maker.communicate()
    assert leftovers.sweep(tmp_path) == [made.name]
    assert (made.exists(), mine.exists()) == (False, True)


@pytest.mark.parametrize(
    "said",
    [
        None,
        "",
        "no words",
        "1 2 3",
        "{pid} - {namespace} other-boot",
        "{pid} - pid:[1] {boot}",
        "x - {namespace} {boot}",
    ],
)
def test_what_does_not_prove_a_dead_maker_stays(tmp_path: Path, said: str | None) -> None:
    made = leftovers.folder_of_ours(parent=tmp_path)
    namespace, boot = (made / leftovers.OWNER).read_text().split()[2:]
    (made / leftovers.OWNER).unlink()
    if said is not None:
        (made / leftovers.OWNER).write_text(said.format(pid=2**22 + 1, namespace=namespace, boot=boot))
    assert leftovers.sweep(tmp_path) == []
    (made / leftovers.OWNER).write_text(f"{2**22 + 1} 5 {namespace} {boot}")
    assert leftovers.sweep(tmp_path) == [made.name]


def test_a_link_is_not_followed(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    made = leftovers.folder_of_ours(parent=tmp_path)
    namespace, boot = (made / leftovers.OWNER).read_text().split()[2:]
    (other / leftovers.OWNER).write_text(f"{2**22 + 1} 5 {namespace} {boot}")
    (tmp_path / f"{leftovers.PREFIX}link").symlink_to(other)
    assert leftovers.sweep(tmp_path) == []
    assert other.exists()
