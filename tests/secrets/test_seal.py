"""The project's key: minted once, private, and what it seals opens for it alone."""

from __future__ import annotations

import base64
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.secrets.project_key import KeyRefused, ProjectKey, exported, project_key

KEY = ProjectKey(b"k" * 32)
CANARY = "hunter2-canary"


@given(st.binary(max_size=200), st.text(max_size=20))
def test_what_was_sealed_is_unsealed(value: bytes, about: str) -> None:
    text = KEY.seal(value, about=about)
    assert text.startswith("sealed:v1:")
    assert text.isascii()
    assert KEY.unseal(text, about=about) == value


def test_it_differs_each_time_and_hides_its_value() -> None:
    texts = {KEY.seal(CANARY.encode()) for _ in range(5)}
    assert len(texts) == 5
    assert not any(CANARY in text or base64.b64encode(CANARY.encode()).decode() in text for text in texts)
    assert CANARY not in repr(KEY)


@pytest.mark.parametrize("text", ["", "plain", "sealed:v1:", "sealed:v1:!!", "sealed:v1:AAAA", "sealed:v2:AAAA"])
def test_a_text_that_it_did_not_seal(text: str) -> None:
    with pytest.raises(KeyRefused):
        KEY.unseal(text)


def test_another_key_another_subject_or_a_change() -> None:
    text = KEY.seal(CANARY.encode(), about="train")
    changed = text[:-6] + ("A" if text[-6] != "A" else "B") + text[-5:]
    for key, sealed, about in ((ProjectKey(b"x" * 32), text, "train"), (KEY, text, "eval"), (KEY, changed, "train")):
        with pytest.raises(KeyRefused) as refused:
            key.unseal(sealed, about=about)
        assert CANARY not in str(refused.value)


def test_derived_keys() -> None:
    assert KEY.derive("launch1") == KEY.derive("launch1")
    assert len({KEY.derive("launch1"), KEY.derive("launch2"), ProjectKey(b"x" * 32).derive("launch1")}) == 3
    assert len(KEY.derive("launch1")) == 32


def test_minted_once(tmp_path: Path) -> None:
    text = project_key(tmp_path / "keys", environ={}).seal(b"a")
    assert project_key(tmp_path / "keys", environ={}).unseal(text) == b"a"
    file = tmp_path / "keys" / "project.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(file.parent) == ["project.key"]


def _mint(folder: Path, start: Any, done: Any) -> None:
    start.wait()
    project_key(folder, environ={})
    done.put((folder / "project.key").read_bytes())


def test_racing_minters_agree(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, done = context.Event(), context.Queue()
    minters = [context.Process(target=_mint, args=(tmp_path / "keys", start, done)) for _ in range(4)]
    for minter in minters:
        minter.start()
    start.set()
    keys = {done.get(timeout=60) for _ in minters}
    for minter in minters:
        minter.join(240)
    assert keys == {(tmp_path / "keys" / "project.key").read_bytes()}


def test_in_ci_it_comes_from_the_environment_and_is_never_minted(tmp_path: Path) -> None:
    with pytest.raises(KeyRefused, match="DSTACK_PROJECT_KEY is not set"):
        project_key(tmp_path / "keys", environ={"CI": "true"})
    assert not (tmp_path / "keys").exists()
    text = project_key(tmp_path / "keys", environ={}).seal(b"a")
    there = {"CI": "true", "DSTACK_PROJECT_KEY": exported(tmp_path / "keys")}
    assert project_key(tmp_path / "elsewhere", environ=there).unseal(text) == b"a"
    assert not (tmp_path / "elsewhere").exists()


def test_without_minting(tmp_path: Path) -> None:
    with pytest.raises(KeyRefused, match="not there"):
        project_key(tmp_path / "keys", environ={}, mint=False)
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_readable_by_others(tmp_path: Path, mode: int) -> None:
    project_key(tmp_path, environ={})
    (tmp_path / "project.key").chmod(mode)
    with pytest.raises(KeyRefused, match="chmod 600"):
        project_key(tmp_path, environ={})


@pytest.mark.parametrize("text", ["", CANARY, "A" * 44, CANARY + "\u00e9"])
def test_a_broken_key_says_where_and_never_what(tmp_path: Path, text: str) -> None:
    file = tmp_path / "project.key"
    file.write_text(text)
    file.chmod(0o600)
    environs: list[dict[str, str]] = [{}, {"DSTACK_PROJECT_KEY": text}] if text else [{}]
    for environ in environs:
        with pytest.raises(KeyRefused) as refused:
            project_key(tmp_path, environ=environ)
        assert "not a project key" in str(refused.value)
        assert CANARY not in str(refused.value)
        assert refused.value.__suppress_context__


def test_a_link_or_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "project.key").symlink_to(tmp_path / "real")
    with pytest.raises(KeyRefused):
        project_key(tmp_path, environ={})
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyRefused):
        project_key(tmp_path / "file" / "keys", environ={})
