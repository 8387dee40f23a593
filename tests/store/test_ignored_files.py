"""What stays on this machine: `.gitignore` and `.dstackignore`, with git and without, and files that look like keys."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from reconciler.store.blobs.bundle import CannotBundle, bundle
from reconciler.store.blobs.ignore_rules import IgnoreRules
from reconciler.store.blobs.secret_looking import looks_secret

PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==\n-----END OPENSSH PRIVATE KEY-----\n"


def write(root: Path, name: str, text: str = "x") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def sent(root: Path, *files: str) -> list[str]:
    notes: list[str] = []
    packed = bundle(root, files or None, told=notes.append)
    try:
        with tarfile.open(packed) as tar:
            return tar.getnames()
    finally:
        packed.unlink()


# ---------------------------------------------------------------- rules


@pytest.mark.parametrize("repository", [True, False])
def test_rules_hold_with_git_and_without(tmp_path: Path, repository: bool) -> None:
    write(tmp_path, "folder/.gitignore", "hello.txt\n")
    write(tmp_path, "folder/hello.txt")
    write(tmp_path, ".gitignore", "*.log\n!keep.log\n/data/\n")
    write(tmp_path, ".dstackignore", "big/\n# a comment\n*.ckpt\n!last.ckpt\n")
    for name in ("a.log", "keep.log", "data/x", "sub/data/y", "big/z", "sub/big/z", "a.ckpt", "last.ckpt", "hello.txt"):
        write(tmp_path, name)
    if repository:
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
        subprocess.run(["git", "-C", str(tmp_path), "add", "."], check=True)
    assert sent(tmp_path) == [
        ".dstackignore", ".gitignore", "folder/.gitignore", "hello.txt", "keep.log", "last.ckpt", "sub/data/y",
    ]  # fmt: skip


def test_without_a_git_program_the_rules_hold_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, ".gitignore", "secret.txt\n")
    write(tmp_path, "secret.txt")
    monkeypatch.setenv("PATH", "/nowhere")
    assert sent(tmp_path) == [".gitignore"]
    (tmp_path / ".git").mkdir()  # a repository that nobody can read has rules that nobody knows
    (tmp_path / ".git/HEAD").write_text("ref: refs/heads/main\n")
    with pytest.raises(CannotBundle, match="git is not on PATH"):
        sent(tmp_path)


def test_rules_that_cannot_be_read_are_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").mkdir()
    write(tmp_path, "a")
    assert sent(tmp_path) == ["a"], "as git: a folder of that name says nothing"
    (tmp_path / ".gitignore").rmdir()
    os.mkfifo(tmp_path / ".gitignore")
    assert sent(tmp_path) == ["a"]
    (tmp_path / ".gitignore").unlink()

    class Unreadable(type(tmp_path)):  # type: ignore[misc]
        def read_bytes(self) -> bytes:
            raise PermissionError(13, "Permission denied")

    write(tmp_path, ".dstackignore", "a\n")
    with pytest.raises(CannotBundle, match=r"\.dstackignore: Permission denied: what it leaves out is not known"):
        bundle(Unreadable(tmp_path))


PIECES = st.sampled_from(
    ["a", "b", "ab", "*", "?", "**", "/", "[ab]", "[!a]", "[a-b]", "\\a", "\\*", " ", "!", "#", "."]
)
LINES = st.lists(PIECES, min_size=1, max_size=6).map("".join)
FILES = ("a", "b", "ab", "a.b", "b/a", "a/b", "ab/a", "a/b/a", "b/ab/b", "a b", "#a", "!a", "*", "b/*")


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(LINES, min_size=1, max_size=4), st.lists(LINES, max_size=2))
@example(["a/**", "!a/b"], [])
@example(["/*", "!/a"], ["*"])
@example(["**/b", "a/**/a", "b/", "a\\ ", "\\#a", "\\!a"], ["!ab"])
@example(["[[:alpha:]]b", "[]a]", "[a"], [])
def test_rules_are_gits(tmp_path_factory: pytest.TempPathFactory, lines: list[str], inner: list[str]) -> None:
    root = tmp_path_factory.mktemp("rules")
    for name in FILES:
        if not any((root / parent).is_file() for parent in Path(name).parents) and not (root / name).is_dir():
            write(root, name)
    write(root, ".gitignore", "\n".join(lines))
    if (root / "b").is_dir():
        write(root, "b/.gitignore", "\n".join(inner))
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    answer = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--others", "--exclude-standard"], check=True, capture_output=True
    )
    theirs = set(filter(None, answer.stdout.decode().split("\0")))
    rules = IgnoreRules(root, ".gitignore")
    every = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    ours = {path for path in every if not path.startswith(".git/") and not rules.ignores(path)}
    assert ours == theirs
    shutil.rmtree(root)


# ---------------------------------------------------------------- keys


SECRET = (
    ".env", ".env.local", "app/.env.production", "prod.env", ".envrc", ".netrc", "_netrc", ".aws/credentials",
    ".aws/sso/cache/x.json", ".ssh/id_ed25519", ".ssh/work", "deploy/id_rsa", ".pgpass", ".git-credentials",
    ".kube/config", "lab.kubeconfig", "kubeconfig.yaml", ".docker/config.json", ".config/gcloud/credentials.db",
    "application_default_credentials.json", "a.p12", "b.PFX", ".config/gh/hosts.yml", ".cache/huggingface/token",
    "kaggle.json", ".azure/msal_token_cache.json", ".ENV",
)  # fmt: skip
OPEN = (
    ".env.example", ".env.sample", "env", "environment.yml", ".ssh/config", ".ssh/id_ed25519.pub", ".ssh/known_hosts",
    "credentials.py", "key.py", "train.pem.md", "kubernetes.md", "id_rsa.pub", ".npmrc", "config.json", "pip.conf",
)  # fmt: skip
CONTENT = {
    "tls.pem": PEM,
    "chain.crt": "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nx\n",
    "deploy_key": PEM,
    "anything.bin": PEM,
    "sa.json": '{"type": "service_account", "private_key": "-----BEGIN PRIVATE KEY-----\\nx"}',
    "adc.json": '{"client_id": "x", "refresh_token": "y"}',
    ".npmrc": "//registry.npmjs.org/:_authToken=npm_x\n",
    ".pypirc": "[pypi]\nusername = __token__\npassword = pypi-x\n",
    "pip.conf": "[global]\nindex-url = https://me:secret@pypi.example/simple\n",
    "cluster.yaml": "apiVersion: v1\nkind: Config\nusers:\n- name: a\n  user:\n    client-key-data: LS0t\n",
    "token.yml": "kind: Config\nusers:\n- user:\n    token: abc\n",
    "age.txt": "AGE-SECRET-KEY-1QQQ\n",
    "sign.asc": "-----BEGIN PGP PRIVATE KEY BLOCK-----\nx\n",
}
HARMLESS = {
    "cert.pem": "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n",
    "test_keys.py": f'KEY = """\n{PEM}"""\n',
    "guide.md": f"Paste it:\n\n{PEM}",
    "package.json": '{"name": "x"}',
    "k8s.yaml": "kind: Deployment\nspec: {}\n",
    ".npmrc": "save-exact=true\n",
    "pip.conf": "[global]\nindex-url = https://pypi.example/simple\n",
    "slides.key": "PK\x03\x04",
}


@pytest.mark.parametrize("name", SECRET)
def test_what_is_called_like_a_key_stays_unless_it_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    write(tmp_path, "train.py")
    assert sent(tmp_path) == ["train.py"]
    assert sent(tmp_path, ".") == ["train.py"]
    assert name in sent(tmp_path, name)


@pytest.mark.parametrize("name", OPEN)
def test_what_is_called_otherwise_travels(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    assert sent(tmp_path) == [name]


@pytest.mark.parametrize("name", CONTENT)
def test_what_holds_a_key_stays(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, CONTENT[name])
    write(tmp_path, "train.py")
    assert sent(tmp_path) == ["train.py"]


@pytest.mark.parametrize("name", HARMLESS)
def test_what_only_speaks_of_keys_travels(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, HARMLESS[name])
    assert sent(tmp_path) == [name]


def test_a_tracked_key_stays_too_and_all_of_it_is_said(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for name in ("train.py", *(f"{letter}/.env" for letter in "abcdefg")):
        write(tmp_path, name, "x" * 100_000)
    subprocess.run(["git", "-C", str(tmp_path), "add", "."], check=True)
    notes: list[str] = []
    bundle(tmp_path, (".", "a/.env"), told=notes.append).unlink()
    assert notes[0] == (
        "6 files look like keys and are not sent: b/.env, c/.env, d/.env, e/.env, f/.env, …. "
        "To send one, name it in `files`."
    )
    assert notes[1] == "2 files (0.2 MB) are sent."


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, "big", PEM + "x" * 100_000)
    assert not looks_secret(tmp_path, "big", size=100_161)
