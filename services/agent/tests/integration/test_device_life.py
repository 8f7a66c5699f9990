"""The agent's command against a real HTTP server and the real runtime."""

from __future__ import annotations

import os
import stat

import pytest


def test_enrolment_gives_an_identity_and_a_private_key(agent, fleet) -> None:
    code, said = agent("once")
    assert (code, said["reason"]) == (3, "NOT_ENROLLED")
    token = fleet.server.token()
    code, said = agent("enroll", "--server", fleet.server.url, "--token", token, "--id", "cam-1")
    assert code == 0 and said["device"].endswith("/devices/cam-1")
    assert stat.S_IMODE(os.stat(agent.home / "device.key").st_mode) == 0o600
    code, said = agent("enroll", "--server", fleet.server.url, "--token", token)
    assert (code, said["reason"]) == (3, "ALREADY_ENROLLED")


def test_a_lost_answer_to_the_enrolment_is_repeated_with_the_same_key(agent, fleet) -> None:
    token = fleet.server.token()
    assert agent("enroll", "--server", fleet.server.url, "--token", token, "--id", "cam-1")[0] == 0
    (agent.home / "identity.json").unlink()
    assert agent("enroll", "--server", fleet.server.url, "--token", token, "--id", "cam-1")[0] == 0
    code, said = agent("enroll", "--server", fleet.server.url, "--token", token, "--id", "cam-1", "--again")
    assert (code, said["reason"]) == (3, "TOKEN_USED")


def test_through_a_proxy(agent, fleet, monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", fleet.server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    options = ("--server", "http://fleet.test", "--token", fleet.server.token(), "--id", "cam-1")
    assert agent("enroll", *options, "--allow-http")[0] == 0
    fleet.release(1)
    assert agent("once")[1]["result"] == "installed"
    assert all(address.startswith("http://fleet.test/") for address in fleet.server.proxied)
    assert len(fleet.server.proxied) == len(fleet.server.requests)


def test_bad_tokens_and_a_false_root(agent, fleet) -> None:
    url = fleet.server.url
    assert agent("enroll", "--server", url, "--token", "bwe1.x")[1]["reason"] == "TOKEN_MALFORMED"
    assert (
        agent("enroll", "--server", "boardwright", "--token", fleet.server.token())[1]["reason"]
        == "SERVER_INVALID"
    )
    assert agent("enroll", "--server", "http://h.test", "--token", fleet.server.token())[1]["reason"] == (
        "SERVER_INSECURE"
    )
    unknown = fleet.server.token(7)
    del fleet.server.tokens[unknown]
    assert agent("enroll", "--server", url, "--token", unknown)[1]["reason"] == "TOKEN_INVALID"
    token = fleet.server.token()
    fleet.server.repository.root += b"\n"
    code, said = agent("enroll", "--server", url, "--token", token)
    assert (code, said["reason"]) == (3, "ROOT_MISMATCH")
    assert not (agent.home / "identity.json").exists()


def test_installs_runs_reports_and_stays(enrolled, fleet) -> None:
    assert enrolled("once")[1]["result"] == "nothing-assigned"
    bundle = fleet.release(1, scale=2.0)
    code, said = enrolled("once")
    assert code == 0 and said["result"] == "installed" and said["golden_samples"] == 2
    assert enrolled.run_model() == 2.0
    report = fleet.server.reports[-1]
    assert report["kind"] == "installed" and report["installed"]["release"] == bundle.release
    assert report["installed"]["bundle_digest"] == str(bundle.to_manifest().digest)
    assert report["host"]["runtime"] == "onnxruntime" and report["refusal"] is None
    reports = len(fleet.server.reports)
    assert enrolled("once")[1]["result"] == "up-to-date"
    asked = len(fleet.server.requests)
    assert enrolled("once")[1]["result"] == "up-to-date"
    assert [path for _, path, _ in fleet.server.requests[asked:]] == [
        f"/tuf/projects/default/fleets/line-1/metadata/{name}" for name in ("2.root.json", "timestamp.json")
    ]
    assert len(fleet.server.reports) == reports + 1


def test_updates_alternate_slots_and_share_files(enrolled, fleet) -> None:
    for number, slot in ((1, "a"), (2, "b"), (3, "a")):
        fleet.release(number, scale=float(number))
        asked = len(fleet.server.requests)
        assert enrolled("once")[1]["result"] == "installed"
        assert enrolled.run_model() == float(number)
        status = enrolled("status")[1]
        assert status["slot"] == slot and status["install_time"] <= status["last_report_time"]
        blobs = [path for _, path, _ in fleet.server.requests[asked:] if "/blobs/" in path]
        assert len(blobs) == (5 if number == 1 else 2)  # the model and its golden samples; the rest is here
    assert enrolled("status")[1]["previous_release"].endswith("/2")
    assert not list((enrolled.home / "downloads").iterdir())


def test_paused_and_withdrawn_rollouts(enrolled, fleet) -> None:
    fleet.release(1, scale=2.0)
    enrolled("once")
    fleet.release(2, scale=3.0, paused=True)
    assert enrolled("once")[1]["result"] == "waiting"
    assert enrolled.run_model() == 2.0
    fleet.server.publish()
    assert enrolled("once")[1]["result"] == "nothing-assigned"
    assert enrolled.run_model() == 2.0


def test_bundle_for_another_board(enrolled, fleet, pin_of_host) -> None:
    fleet.release(1, pin=pin_of_host(board="jetson-orin-nx"))
    code, said = enrolled("once")
    assert (code, said["reason"]) == (3, "BUNDLE_OTHER_BOARD")
    assert "built for board jetson-orin-nx, this is" in said["message"]
    assert fleet.server.reports[-1]["kind"] == "refused"
    assert fleet.server.reports[-1]["refusal"]["reason"] == "BUNDLE_OTHER_BOARD"
    assert fleet.server.reports[-1]["refusal"]["rollout"] == "rollouts/1"
    assert not any("/blobs/" in path for _, path, _ in fleet.server.requests)
    fleet.release(2, pin=pin_of_host(runtime_version="0.1.2"))
    assert "needs onnxruntime 0.1.2, this machine has" in enrolled("once")[1]["message"]
    fleet.release(3, pin=pin_of_host() | {"moon_phase": "full"})
    assert "too old" in enrolled("once")[1]["message"]


def test_the_fitting_bundle_of_a_mixed_release(enrolled, fleet, pin_of_host) -> None:
    other = fleet.bundle(1, scale=5.0, pin=pin_of_host(architecture="riscv64", board="other"))
    fleet.server.publish(other, fleet.bundle(1, scale=7.0))
    assert enrolled("once")[1]["result"] == "installed"
    assert enrolled.run_model() == 7.0


def test_pin_inside_the_bundle_must_be_the_signed_one(enrolled, fleet, pin_of_host) -> None:
    fleet.release(1, inner_pin=pin_of_host(board="other"))
    code, said = enrolled("once")
    assert (code, said["reason"]) == (3, "BUNDLE_INVALID")


def test_a_manifest_signed_for_another_pin_is_refused(enrolled, fleet, pin_of_host) -> None:
    bundle, pin = fleet.bundle(1, pin=pin_of_host(board="other"))
    fleet.server.publish((bundle, pin))
    index = fleet.server.repository.files
    path = next(name for name in index if name.endswith(".index.json") and b"other" in index[name])
    # Whoever holds the index but not the bundle's signature: re-sign an index that lies about the pin.
    targets = {"index.json": (index[path].replace(b'"other"', f'"{pin_of_host()["board"]}"'.encode()), {})}
    data = bundle.to_manifest().to_bytes()
    targets[f"bundles/{bundle.to_manifest().digest.hex}.json"] = (
        data,
        {"pin": pin, "release": bundle.release},
    )
    fleet.server.repository.publish(targets)
    code, said = enrolled("once")
    assert (code, said["reason"]) == (3, "BUNDLE_NOT_SIGNED")


def test_one_byte_changed_in_a_file_of_the_bundle(enrolled, fleet) -> None:
    fleet.release(1, scale=2.0)
    enrolled("once")
    bundle = fleet.release(2, scale=3.0)
    model = bundle.file("model")
    fleet.server.fault.changed_blobs.add(str(model.digest))
    code, said = enrolled("once")
    assert (code, said["reason"]) == (3, "BLOB_CHANGED") and "not the file that was signed" in said["message"]
    assert enrolled.run_model() == 2.0
    asked = len(fleet.server.requests)
    assert enrolled("once")[1]["reason"] == "BLOB_CHANGED"  # not tried again, but said again
    assert not any("/blobs/" in path for _, path, _ in fleet.server.requests[asked:])
    fleet.server.fault.changed_blobs.clear()
    fleet.release(2, scale=3.0)  # a new rollout is a new try
    assert enrolled("once")[1]["result"] == "installed"


def test_one_byte_changed_in_the_manifest(enrolled, fleet) -> None:
    fleet.release(1)
    files = fleet.server.repository.files
    name = next(name for name in files if "/bundles/" in name)
    files[name] = files[name].replace(b"model.onnx", b"model.onny")
    code, said = enrolled("once")
    assert (code, said["reason"]) == (3, "METADATA_CHANGED")


def test_golden_samples_that_come_out_differently(enrolled, fleet) -> None:
    fleet.release(1, scale=2.0)
    enrolled("once")
    fleet.release(2, scale=3.0, golden_scale=3.5)
    code, said = enrolled("once")
    assert (code, said["reason"]) == (3, "GOLDEN_MISMATCH")
    assert "differs by up to" in said["message"] and "2 of 2" in said["message"]
    assert enrolled.run_model() == 2.0
    status = enrolled("status")[1]
    assert status["refusal"]["reason"] == "GOLDEN_MISMATCH"
    assert "releases/2 was not installed: 2 of 2 golden samples" in status["last_check"]
    assert fleet.server.reports[-1]["refusal"]["release"].endswith("/2")
    assert fleet.server.reports[-1]["installed"]["release"].endswith("/1")


def test_a_model_that_the_runtime_does_not_load(enrolled, fleet) -> None:
    fleet.release(1, model=b"\x08\x07garbage")
    code, said = enrolled("once")
    assert (code, said["reason"]) == (3, "RUNTIME_FAILED")
    fleet.release(2, runtime={"graph_optimization": "beyond"})
    assert "install a newer one" in enrolled("once")[1]["message"]


def test_health_command_fails_after_the_switch_and_the_device_goes_back(enrolled, fleet) -> None:
    fleet.release(1, scale=2.0)
    assert enrolled("once", "--health-command", "true")[1]["result"] == "installed"
    fleet.release(2, scale=3.0)
    command = "sh -c 'echo camera is dark >&2; test -f $BOARDWRIGHT_SLOT/model.onnx && exit 9'"
    code, said = enrolled("once", "--health-command", command)
    assert (code, said["reason"]) == (3, "HEALTH_FAILED")
    assert "went back to slot a" in said["message"] and "camera is dark" in said["message"]
    assert enrolled.run_model() == 2.0
    assert fleet.server.reports[-1]["kind"] == "rolled-back"
    assert not list((enrolled.home / "downloads").iterdir())
    assert enrolled("once", "--health-command", command)[1] == said  # not tried, but told again as a whole
    fleet.release(1, scale=2.0)
    assert enrolled("once")[1]["result"] == "up-to-date"


def test_the_first_installation_that_fails_leaves_no_slot(enrolled, fleet) -> None:
    fleet.release(1)
    assert enrolled("once", "--health-command", "false")[1]["reason"] == "HEALTH_FAILED"
    assert not (enrolled.home / "current").exists()
    assert enrolled("status")[1]["slot"] is None


@pytest.mark.parametrize("path", ["/tuf", "/device/v1/blobs"])
def test_server_errors_are_unavailable_and_go_away(enrolled, fleet, path: str, monkeypatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    fleet.release(1)
    fleet.server.fault.refuse[path] = 503
    code, said = enrolled("once")
    assert (code, said["result"]) == (4, "unavailable")
    fleet.server.fault.refuse.clear()
    assert enrolled("once")[1]["result"] == "installed"


def test_who_is_turned_away_from_a_download_tries_again(enrolled, fleet) -> None:
    """A proxy's 403 says nothing of the bundle: it must not keep a device from it until the next rollout."""
    fleet.release(1)
    fleet.server.fault.refuse["/device/v1/blobs"] = 403
    code, said = enrolled("once")
    assert (code, said["reason"]) == (3, "HTTP_403") and enrolled("status")[1]["refusal"] is None
    assert (fleet.server.reports[-1]["kind"], fleet.server.reports[-1]["refusal"]["rollout"]) == (
        "failed",
        "",
    )
    fleet.server.fault.refuse.clear()
    assert enrolled("once")[1]["result"] == "installed"


def test_a_report_that_does_not_arrive_is_sent_next_time(enrolled, fleet) -> None:
    fleet.release(1)
    fleet.server.fault.refuse["/device/v1/report"] = 500
    code, said = enrolled("once")
    assert (code, said["result"], said["reported"]) == (0, "installed", False)
    assert not fleet.server.reports
    fleet.server.fault.refuse.clear()
    enrolled("once")
    assert fleet.server.reports[-1]["installed"]["release"].endswith("/1")


def test_only_one_agent_works_in_a_home(enrolled) -> None:
    from boardwright.agent.home import Home

    with Home(enrolled.home).locked():
        code, said = enrolled("once")
    assert (code, said["reason"]) == (3, "AGENT_RUNNING")


def test_a_key_that_others_may_read(enrolled) -> None:
    (enrolled.home / "device.key").chmod(0o644)
    assert enrolled("once")[1]["reason"] == "KEY_UNSAFE"


@pytest.mark.parametrize("lost", [True, False])
def test_a_key_that_the_disk_damaged_is_replaced_by_a_new_enrolment(enrolled, fleet, lost: bool) -> None:
    (enrolled.home / "device.key").write_bytes(b"")
    if lost:
        (enrolled.home / "device.key").unlink()
    code, said = enrolled("once")
    assert (code, said["reason"]) == (3, "HOME_DAMAGED") and "--again" in said["message"]
    options = ("--server", fleet.server.url, "--token", fleet.server.token(2), "--id", "cam-1", "--again")
    assert enrolled("enroll", *options)[0] == 0
