"""Each process gets what it needs and no other's secrets."""

from pathlib import Path

import pytest

from boardwright.cli.embedded.credentials import SERVICES, Credentials
from boardwright.cli.embedded.folder import DataFolder
from boardwright.cli.embedded.processes import PORT_NAMES, SECRETS, ProcessSpec, describe, full_environment

_CREDENTIALS = Credentials(
    admin="admin-token",
    worker="worker-token",
    services={name: f"{name}-token" for name in (*SERVICES, "gateway")},
    grant_key="grant-key",
    signing_key="signing-key",
)


@pytest.fixture
def specs(tmp_path: Path) -> dict[str, ProcessSpec]:
    ports = {name: 4000 + number for number, name in enumerate(PORT_NAMES)}
    return {spec.name: spec for spec in describe(DataFolder(tmp_path), _CREDENTIALS, ports)}


def test_the_stack_has_all_services_a_gateway_and_a_worker(specs: dict[str, ProcessSpec]) -> None:
    assert list(specs) == [*SERVICES, "gateway", "worker"]
    assert [name for name, spec in specs.items() if spec.stop_first] == ["gateway", "worker"]


def test_no_process_sees_the_token_of_another(specs: dict[str, ProcessSpec]) -> None:
    for name, spec in specs.items():
        tokens = {value for value in spec.environment.values() if value.endswith("-token")}
        assert tokens == {f"{name}-token"}


def test_blobs_and_keys_reach_only_those_that_use_them(specs: dict[str, ProcessSpec]) -> None:
    with_blobs = {name for name, spec in specs.items() if "BOARDWRIGHT_BLOBS_URL" in spec.environment}
    assert with_blobs == {"registry", "gateway"}
    assert "BOARDWRIGHT_GRANT_KEY" not in specs["worker"].environment


def test_every_secret_is_known_as_one(specs: dict[str, ProcessSpec]) -> None:
    secrets = {"grant-key", "signing-key"}
    for spec in specs.values():
        for name, value in spec.environment.items():
            assert (name in SECRETS) == (value in secrets or value.endswith("-token")), name


def test_settings_of_another_stack_do_not_leak_in(
    specs: dict[str, ProcessSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOARDWRIGHT_DATABASE_URL", "postgresql://elsewhere/db")
    monkeypatch.setenv("BOARDWRIGHT_LOG", "debug")
    monkeypatch.setenv("BOARDWRIGHT_JOBS_KEPT_DAYS", "30")
    environment = full_environment(DataFolder(tmp_path), specs["worker"])
    assert "BOARDWRIGHT_DATABASE_URL" not in environment
    assert (environment["BOARDWRIGHT_LOG"], environment["BOARDWRIGHT_JOBS_KEPT_DAYS"]) == ("debug", "30")
    assert environment["BOARDWRIGHT_READY_FILE"].endswith("worker.ready.json")
