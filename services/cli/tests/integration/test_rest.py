"""REST beside the command, on the same stack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx


def test_rest_shows_what_the_command_made(boardwright: Any) -> None:
    held = boardwright.json("status")
    token = json.loads((Path(held["data"]) / "run" / "endpoints.json").read_text())["token"]
    with httpx.Client(base_url=held["url"], headers={"Authorization": f"Bearer {token}"}) as http:
        created = http.post(
            "/v1/projects/default/models", json={"model_id": "by-rest", "model": {"task": "detection"}}
        )
        assert created.status_code == 200, created.text
        assert boardwright.json("show", "by-rest") == {
            **created.json(),
        }
        again = http.post(
            "/v1/projects/default/models", json={"model_id": "by-rest", "model": {"task": "detection"}}
        )
        assert (again.status_code, again.json()["reason"]) == (409, "MODEL_EXISTS")
        assert http.get("/health").json()["status"] == "SERVING"
    refused = httpx.get(f"{held['url']}/v1/projects/default/models")
    assert (refused.status_code, refused.json()["reason"]) == (401, "TOKEN_MISSING")
    assert "boardwright_gateway_rest_seconds" in httpx.get(f"{held['url']}/metrics").text
