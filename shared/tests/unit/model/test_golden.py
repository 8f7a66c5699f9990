import io
import zipfile

import numpy as np
import pytest

from boardwright.model import GoldenSamples, ModelError

INPUTS = {"input": np.arange(12, dtype=np.float32).reshape(3, 4)}
OUTPUTS = {"logits": np.arange(6, dtype=np.float32).reshape(3, 2)}
GOLDEN = GoldenSamples(INPUTS, OUTPUTS, absolute=0.01, relative=0.0)


def runtime(shift: float, only: int = -1):  # type: ignore[no-untyped-def]
    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        index = int(inputs["input"][0, 0]) // 4
        wrong = shift if only in (-1, index) else 0.0
        return {"logits": OUTPUTS["logits"][index : index + 1] + np.float32(wrong)}

    return run


def test_bytes_round_trip_and_are_deterministic() -> None:
    again = GoldenSamples.from_bytes(GOLDEN.to_bytes())
    np.testing.assert_array_equal(again.inputs["input"], INPUTS["input"])
    assert again.absolute == 0.01 and len(again) == 3
    assert GOLDEN.to_bytes() == again.to_bytes()


def test_within_tolerance_passes_and_beyond_names_the_sample() -> None:
    assert GOLDEN.check(runtime(0.005)).passed
    verdict = GOLDEN.check(runtime(0.5, only=1))
    assert not verdict.passed and verdict.failed == (1,)
    assert verdict.worst_error == pytest.approx(0.5)
    assert "sample 1: output 'logits' differs by up to 0.5 (2 of 2 elements" in verdict.reasons[0]


def test_outliers_are_a_share_of_the_elements() -> None:
    outputs = {"y": np.zeros((1, 100), np.float32)}
    off = np.zeros((1, 100), np.float32)
    off[0, :3] = 9
    assert GoldenSamples({"x": np.zeros((1, 1))}, outputs, outliers=0.03).compare([{"y": off}]).passed
    assert not GoldenSamples({"x": np.zeros((1, 1))}, outputs, outliers=0.02).compare([{"y": off}]).passed


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ({}, "is missing"),
        ({"logits": np.zeros((1, 3))}, "has shape"),
        ({"logits": np.full((1, 2), np.nan)}, "not finite"),
    ],
)
def test_unusable_outputs_fail(outputs: dict[str, np.ndarray], reason: str) -> None:
    verdict = GOLDEN.check(lambda _: outputs)
    assert not verdict.passed and len(verdict.failed) == 3 and reason in verdict.reasons[0]


def test_hostile_bytes_are_refused() -> None:
    pickled = io.BytesIO()
    np.savez(pickled, **{"inputs/x": np.array([object()])}, allow_pickle=True)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inputs/x.npy", b"\0" * (65 << 20))
    for data in (b"", b"PK\x03\x04", GOLDEN.to_bytes()[:-9], pickled.getvalue(), bomb.getvalue()):
        with pytest.raises(ModelError, match="golden samples") as caught:
            GoldenSamples.from_bytes(data)
        assert caught.value.reason == "GOLDEN_SAMPLES_INVALID"


def test_every_damaged_byte_gives_samples_or_a_refusal() -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    whole = GoldenSamples({"x": x}, {"y": x}).to_bytes()
    refused = 0
    for place in range(len(whole)):
        try:
            GoldenSamples.from_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        except ModelError as error:
            refused += error.reason == "GOLDEN_SAMPLES_INVALID"
    assert refused > len(whole) // 2


def test_ragged_arrays_are_refused() -> None:
    with pytest.raises(ModelError, match="same number of samples"):
        GoldenSamples(INPUTS, {"logits": np.zeros((2, 2))})
