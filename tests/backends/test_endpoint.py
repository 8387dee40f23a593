"""`endpoint` of a backend: where every request goes, and where none does."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.aws.clients import client
from backends.errors import BackendError
from reconciler.config.load import load
from schemas.desired import BackendConfig

HERE = "http://127.0.0.1:9"
ROLE = {"role_arn": "arn:aws:iam::1:role/r"}


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAAAAAAAAAAAAAAAAA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x" * 40)


@pytest.mark.parametrize("service", ["ec2", "sts", "ssm", "service-quotas", "s3"])
def test_every_service_is_asked_there(service: str) -> None:
    config = BackendConfig(name="try", type="aws", options={"endpoint": HERE})
    assert client(config, service, "eu-west-1").meta.endpoint_url == HERE


@pytest.mark.parametrize("options", [{}, {"creds": ROLE}])
def test_nothing_is_sent_to_another_machine(options: dict[str, object]) -> None:
    config = BackendConfig(name="try", type="aws", options={"endpoint": "https://ec2.example.com", **options})
    with pytest.raises(BackendError, match="that is not this machine"):
        client(config, "sts", "eu-west-1")


def test_a_backend_with_an_endpoint_elsewhere_is_not_used(tmp_path: Path) -> None:
    (tmp_path / ".dstack").mkdir()
    text = "backends:\n- type: aws\n  endpoint: https://ec2.example.com\npools:\n- name: gpu\n  backends: [aws]\n"
    (tmp_path / ".dstack" / "pools.yml").write_text(text)
    desired = load(tmp_path, home=tmp_path).desired
    assert "an `endpoint` on another machine is not supported yet" in desired.backends[0].unsupported[0]
    assert desired.pools[0].unsupported
