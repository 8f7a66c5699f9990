"""The worker's settings come from the environment and say what is missing."""

from pathlib import Path

import pytest

from boardwright.jobs.worker.__main__ import main
from boardwright.jobs.worker.kinds import installed_kinds
from boardwright.jobs.worker.probe import Machine, probe_machine
from boardwright.jobs.worker.settings import SettingMissing, read_settings
from boardwright.testing import sample_steps

_ENVIRONMENT = {
    "BOARDWRIGHT_COMPILER_ENDPOINT": "127.0.0.1:1",
    "BOARDWRIGHT_BUILDER_ENDPOINT": "127.0.0.1:2",
    "BOARDWRIGHT_REGISTRY_ENDPOINT": "127.0.0.1:3",
    "BOARDWRIGHT_SERVICE_TOKEN": "token",
    "BOARDWRIGHT_WORKER_FOLDER": "/somewhere",
}


def test_the_services_own_variables_are_the_default_endpoints() -> None:
    settings = read_settings(_ENVIRONMENT, Machine)
    assert settings.endpoints == ("127.0.0.1:1", "127.0.0.1:2")
    assert (settings.slots, settings.folder) == (1, Path("/somewhere"))
    assert settings.offer.memory_bytes > 1 << 28
    assert settings.offer.worker.startswith("worker-")


def test_everything_can_be_said() -> None:
    settings = read_settings(
        {
            **_ENVIRONMENT,
            "BOARDWRIGHT_WORKER_ENDPOINTS": "a:1, b:2,",
            "BOARDWRIGHT_WORKER_NAME": "bench",
            "BOARDWRIGHT_WORKER_SLOTS": "3",
            "BOARDWRIGHT_WORKER_MEMORY_MIB": "512",
            "BOARDWRIGHT_WORKER_CACHE_MIB": "7",
            "BOARDWRIGHT_WORKER_BOARDS": "jetson-orin-nx,raspberry-pi-5",
        },
        Machine,
    )
    assert settings.endpoints == ("a:1", "b:2")
    assert (settings.offer.worker, settings.slots, settings.cache_bytes) == ("bench", 3, 7 << 20)
    assert settings.offer.memory_bytes == 512 << 20
    assert settings.offer.boards == {"jetson-orin-nx", "raspberry-pi-5"}


def test_what_is_not_said_of_the_machine_is_detected() -> None:
    machine = Machine(frozenset({"x86-64"}), frozenset({"onnxruntime"}))
    offer = read_settings(_ENVIRONMENT, lambda: machine).offer
    assert (offer.boards, offer.toolchains) == (machine.boards, machine.toolchains)


def test_this_machine_can_be_probed(caplog: pytest.LogCaptureFixture) -> None:
    assert "onnxruntime" in probe_machine().toolchains
    assert not caplog.records


@pytest.mark.parametrize(
    "missing", ["BOARDWRIGHT_REGISTRY_ENDPOINT", "BOARDWRIGHT_SERVICE_TOKEN", "BOARDWRIGHT_WORKER_FOLDER"]
)
def test_a_missing_setting_is_named(missing: str) -> None:
    with pytest.raises(SettingMissing, match=missing):
        read_settings({**_ENVIRONMENT, missing: ""}, Machine)


def test_a_worker_without_services_is_refused() -> None:
    environment = {name: value for name, value in _ENVIRONMENT.items() if "ENDPOINT" not in name}
    with pytest.raises(SettingMissing, match="BOARDWRIGHT_WORKER_ENDPOINTS"):
        read_settings(environment, Machine)


def test_installed_kinds_are_found_without_importing_them(tmp_path: Path) -> None:
    kinds = installed_kinds((sample_steps.install(tmp_path / "kinds"),))
    assert {"sample/upper", "sample/broken"} <= kinds


def test_help_lists_the_settings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["worker", "--help"])
    assert main() == 0
    assert "BOARDWRIGHT_WORKER_SLOTS" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["worker", "serve"])
    assert main() == 2
