import pytest

from boardwright.model import InputSpec, ModelError


def test_json_round_trip_keeps_every_field() -> None:
    spec = InputSpec(
        name="images",
        height=224,
        width=192,
        layout="NHWC",
        color="BGR",
        scale=1 / 127.5,
        mean=(1.0, 1.0, 1.0),
        std=(0.5, 1.0, 2.0),
        resize="center-crop",
        resize_shorter=256,
        interpolation="area",
        batch=4,
    )
    document = spec.to_json()
    assert document["schema"] == "input-spec/1"
    assert InputSpec.from_json(document) == spec


def test_unknown_field_names_the_nearest() -> None:
    document = InputSpec(height=8, width=8).to_json() | {"colour": "RGB"}
    with pytest.raises(ModelError, match="unknown field 'colour'; did you mean 'color'") as caught:
        InputSpec.from_json(document)
    assert caught.value.reason == "INPUT_SPEC_INVALID"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 0}, "height must be 1 to"),
        ({"height": "224"}, "height must be int"),
        ({"height": True}, "height must be int"),
        ({"color": "CMYK"}, "color must be one of RGB, BGR, GRAY"),
        ({"channels": 1}, "color RGB has 3 channels, not 1"),
        ({"mean": [0.5]}, "mean needs 3 values"),
        ({"std": [1, 0, 1]}, "std holds a zero"),
        ({"scale": float("nan")}, "scale must be a finite number"),
        ({"scale": 10**400}, "scale must be a finite number"),
        ({"resize_shorter": 256}, "belongs to resize 'center-crop' only"),
        ({"resize": "center-crop", "resize_shorter": 4}, "must be at least the crop's 8 px"),
        ({"pad_value": 300}, "pad_value must be 0 to 255"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"schema": "input-spec/9"}, "schema 'input-spec/9' is not the known"),
    ],
)
def test_bad_values_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        InputSpec.from_json(InputSpec(height=8, width=8).to_json() | change)


def test_missing_field_and_bad_json_are_named() -> None:
    with pytest.raises(ModelError, match="field 'width' is missing"):
        InputSpec.from_json({"height": 8})
    with pytest.raises(ModelError, match="is not JSON"):
        InputSpec.from_json("{")
    with pytest.raises(ModelError, match="nested too deep"):
        InputSpec.from_json("[" * 100_000)
    with pytest.raises(ModelError, match="must be a JSON object, not list"):
        InputSpec.from_json("[]")


def test_a_spec_that_does_not_fit_the_graph_says_what_differs() -> None:
    spec = InputSpec(name="images", height=640, width=640)
    spec.check_against({"images": (["N", 3, 640, 640], "tensor(float)")})
    spec.check_against({"images": ([1, 3, "h", "w"], "float32")})
    for inputs, message in [
        ({"data": ([1, 3, 640, 640], "float32")}, "no input 'images'; its inputs: data"),
        ({"images": ([1, 3, 416, 416], "float32")}, "height is 640 but .* has 416"),
        ({"images": ([1, 640, 640, 3], "float32")}, "channels is 3 but .* has 640 .*would fit layout NHWC"),
        ({"images": ([1, 10], "float32")}, "has 2 axes"),
        ({"images": ([1, 3, 640, 640], "uint8")}, "dtype float32 but .* is uint8"),
    ]:
        with pytest.raises(ModelError, match=message) as caught:
            spec.check_against(inputs)
        assert caught.value.reason == "INPUT_SPEC_DOES_NOT_FIT"
