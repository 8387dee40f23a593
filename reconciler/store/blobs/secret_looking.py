"""Files that look like keys or credentials: they travel only where a run names them."""

from __future__ import annotations

import re
from pathlib import Path

HEAD = 64 * 1024  # bytes that are read of a file whose name alone does not tell
_SAMPLE = re.compile(r"\.(example|sample|template|tmpl|dist|defaults?|schema)$")
# What is called so is a secret. The whole path is matched, in lower case.
_NAMED = re.compile(
    r"""(?:.*/)?(?:
      \.env(?:\.[^/]*)? | [^/]+\.env | \.envrc | [._]netrc | \.pgpass | \.my\.cnf | \.git-credentials | \.vault-token
    | \.s3cfg | \.boto | \.dockercfg | \.htpasswd | rclone\.conf | kaggle\.json | \.streamlit/secrets\.toml
    | \.aws/(?:credentials|config|(?:sso|cli)/.*) | \.azure/.* | (?:\.config/)?gcloud/.* | \.oci/.* | \.gnupg/.*
    | \.kube/(?:config|cache/.*) | [^/]*kubeconfig[^/]* | \.docker/config\.json | \.config/gh/hosts\.yml
    | application_default_credentials\.json | \.terraform\.d/credentials\.tfrc\.json | \.terraformrc
    | \.(?:cache/)?huggingface/(?:token|stored_tokens) | \.runpod/config\.toml | \.lambda_cloud/.*
    | id_(?:rsa|dsa|ecdsa|ed25519|xmss|ecdsa_sk|ed25519_sk)
    | \.ssh/(?!config$|known_hosts[^/]*$|authorized_keys$|.*\.pub$).*
    | [^/]+\.(?:p12|pfx|jks|keystore|ppk|kdbx|kdb|agekey)
    )""",
    re.VERBOSE,
)  # fmt: skip
_PRIVATE_KEY = re.compile(rb"^-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----\s*$", re.MULTILINE)
_OTHER_KEY = re.compile(rb"\A\s*(?:PuTTY-User-Key-File-|AGE-SECRET-KEY-1|\S+ ssh-rsa PRIVATE)")
# Suffixes of files that are read for a key anywhere in them; a file of another kind has one only where it begins so.
_MAY_HOLD_A_KEY = {"", ".pem", ".key", ".crt", ".cer", ".priv", ".pkey", ".asc", ".rsa", ".txt"}
_ACCOUNT = rb'"private_key"\s*:\s*"-----BEGIN|"refresh_token"\s*:\s*"|"type"\s*:\s*"service_account"'
_CLUSTER = rb"client-key-data:|(?s:kind:\s*Config\b.*\btoken:)"
_TOLD_BY = tuple(  # (path, what stands in such a file when it is a secret)
    (re.compile(rf"(?:.*/)?{name}"), re.compile(said, re.IGNORECASE))
    for name, said in (
        (r"[^/]*\.json", _ACCOUNT),
        (r"\.?(?:npmrc|yarnrc|yarnrc\.yml)", rb"_authToken|_auth\s*=|_password|npmAuthToken"),
        (r"\.pypirc", rb"password|token"),
        (r"(?:pip\.conf|pip\.ini|\.condarc)", rb"://[^/\s:@]+:[^/\s@]+@"),
        (r"[^/.]*(?:\.ya?ml|\.conf)?", _CLUSTER),
    )
)


def looks_secret(root: Path, path: str, *, size: int) -> bool:
    """Whether the file `path` of `root`, `size` bytes, is likely to be a key or to hold credentials.

    Judged by its name and, up to 64 KiB, by what stands in it. A file that cannot be read is no secret of ours to tell.
    """
    name = path.lower()
    if _NAMED.fullmatch(name):
        return not _SAMPLE.search(name)
    if not 0 < size <= HEAD:
        return False
    try:
        with (root / path).open("rb") as file:
            start = file.read(HEAD)
    except OSError:
        return False
    if _OTHER_KEY.match(start):
        return True
    whole = Path(name).suffix in _MAY_HOLD_A_KEY or start.lstrip().startswith((b"-----BEGIN", b"Bag Attributes"))
    if whole and _PRIVATE_KEY.search(start):
        return True
    return any(path.fullmatch(name) and said.search(start) for path, said in _TOLD_BY)
