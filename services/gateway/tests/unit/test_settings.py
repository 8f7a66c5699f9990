from __future__ import annotations

from pathlib import Path

import pytest

from boardwright.gateway.__main__ import main
from boardwright.gateway.services import SERVICES
from boardwright.gateway.settings import Settings, SettingsError


def _environment() -> dict[str, str]:
    return {f"BOARDWRIGHT_{name.upper()}_ENDPOINT": f"127.0.0.1:{n}" for n, name in enumerate(SERVICES, 1)}


def test_every_setting_is_read() -> None:
    environment = _environment() | {
        "BOARDWRIGHT_GATEWAY_LISTEN": "127.0.0.1:80",
        "BOARDWRIGHT_GATEWAY_GRPC_LISTEN": "127.0.0.1:81",
        "BOARDWRIGHT_SERVICE_TOKEN": "token",
        "BOARDWRIGHT_BLOBS_URL": "file:///blobs",
        "BOARDWRIGHT_SIGNING_KEY": "key",
        "BOARDWRIGHT_READY_FILE": "/run/ready",
    }
    settings = Settings.from_environment(environment)
    assert settings == Settings(
        http_listen="127.0.0.1:80",
        grpc_listen="127.0.0.1:81",
        endpoints={name: f"127.0.0.1:{n}" for n, name in enumerate(SERVICES, 1)},
        service_token="token",
        blobs_url="file:///blobs",
        signing_key=b"key",
        ready_file=Path("/run/ready"),
    )


@pytest.mark.parametrize("service", SERVICES)
def test_a_missing_endpoint_is_named(service: str) -> None:
    environment = _environment()
    del environment[f"BOARDWRIGHT_{service.upper()}_ENDPOINT"]
    with pytest.raises(SettingsError, match=f"BOARDWRIGHT_{service.upper()}_ENDPOINT"):
        Settings.from_environment(environment)


@pytest.mark.parametrize(("words", "status"), [([], 2), (["--help"], 0)])
def test_the_usage_lists_the_settings(words, status, capsys):
    assert main(words) == status
    assert "BOARDWRIGHT_GATEWAY_LISTEN" in capsys.readouterr().err
