"""Batches: the model's own preprocessing, the same again for the same seed, classes as asked for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from boardwright.compiler.engine.errors import DatasetUnfit, EngineError
from boardwright.compiler.engine.evaluate import Sample
from boardwright.compiler.engine.training.augmentation import augment
from boardwright.compiler.engine.training.data import UNLABELLED, DatasetSource, ImageBatches, SampleList
from boardwright.compiler.engine.training.options import (
    DataOptions,
    ObjectiveOptions,
    TrainOptions,
    from_parameters,
)
from boardwright.model import InputSpec, preprocess
from boardwright.samples import (
    DatasetManifest,
    DatasetReader,
    FoundSample,
    ManifestSample,
    PackEntry,
    write_packs,
)

SPEC = InputSpec(height=32, width=48, batch=1, resize="stretch")
SPEC_8 = InputSpec(height=8, width=8, color="GRAY", channels=1, scale=1 / 255, batch=1, resize="none")


def samples(counts: dict[int | None, int]) -> list[Sample]:
    rng = np.random.default_rng(0)
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [
        Sample(str(place), rng.integers(0, 255, (40, 50, 3), dtype=np.uint8), class_index=label)
        for place, label in enumerate(labels)
    ]


def batches(counts: dict[int | None, int], **options: object) -> ImageBatches:
    return ImageBatches(SampleList(samples(counts)), SPEC, DataOptions(**options), seed=1)


def test_an_epoch_shows_every_sample_once_as_the_model_sees_it():
    given = samples({0: 5, 1: 6})
    made = ImageBatches(SampleList(given), SPEC, DataOptions(batch_size=4), seed=1)
    seen = list(made.epoch(0))
    assert [len(batch) for batch in seen] == [4, 4, 3]
    assert len(made) == 3
    assert sorted(name for batch in seen for name in batch.names) == sorted(s.name for s in given)
    first = seen[0]
    expected = preprocess(given[int(first.names[0])].image, SPEC)[0][0]
    np.testing.assert_array_equal(first.inputs["input"][0].numpy(), expected)
    assert first.labels[0] == given[int(first.names[0])].class_index


def test_the_same_seed_gives_the_same_batches_and_epochs_differ():
    options = {"batch_size": 3, "flip": True, "scale_jitter": 0.3, "color_jitter": 0.3, "multi_scale": 0.3}
    first, second = (list(batches({0: 7}, **options).epoch(2)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.names == other.names
        torch.testing.assert_close(one.inputs["input"], other.inputs["input"], rtol=0, atol=0)
    assert [b.names for b in batches({0: 7}, **options).epoch(3)] != [b.names for b in first]


@pytest.mark.parametrize(("method", "share"), [("none", 0.1), ("square-root", 0.25), ("balanced", 0.5)])
def test_resampling_draws_rare_classes_more_often(method, share):
    made = batches({0: 90, 1: 10}, batch_size=50, resampling=method)
    drawn = Counter(int(label) for epoch in range(10) for b in made.epoch(epoch) for label in b.labels)
    assert drawn[1] / drawn.total() == pytest.approx(share, abs=0.05)


def test_multi_scale_changes_the_input_or_what_is_shown_in_it():
    given = SampleList(samples({0: 16}))
    options = DataOptions(batch_size=1, multi_scale=0.5)
    free = ImageBatches(given, SPEC, options, any_size=True)
    sizes = {tuple(batch.inputs["input"].shape[2:]) for batch in free.epoch(0)}
    assert len(sizes) > 3
    assert all(16 <= height <= 48 and height % 8 == 0 for height, _ in sizes)
    bound = ImageBatches(given, SPEC, options)
    assert {tuple(batch.inputs["input"].shape[2:]) for batch in bound.epoch(0)} == {(32, 48)}


def test_multi_scale_keeps_a_centre_crop_valid():
    spec = InputSpec(height=96, width=96, resize="center-crop", resize_shorter=112)
    made = ImageBatches(
        SampleList(samples({0: 8})), spec, DataOptions(batch_size=1, multi_scale=0.5), any_size=True
    )
    assert {b.inputs["input"].shape[2] for b in made.epoch(0)} == {64, 96, 128}


def test_augmentation_keeps_size_and_type_and_zooming_out_pads():
    image = np.full((20, 30, 3), 200, np.uint8)
    rng = np.random.default_rng(0)
    options = DataOptions(flip=True, scale_jitter=0.3, color_jitter=0.2)
    for _ in range(10):
        changed = augment(image, options, rng)
        assert (changed.shape, changed.dtype) == (image.shape, np.uint8)
    small = augment(image, DataOptions(), rng, zoom=0.5, fill=7)
    assert (small == 7).all(axis=2).sum() == 20 * 30 - 10 * 15
    gray = augment(np.arange(64, dtype=np.uint8).reshape(8, 8), DataOptions(scale_jitter=0.5), rng)
    assert gray.shape == (8, 8, 1)
    assert augment(image, DataOptions(), rng) is image


def test_missing_and_wrong_labels_are_told():
    mixed = batches({0: 3, None: 1}, batch_size=4)
    with pytest.raises(DatasetUnfit, match="1 of 4 samples have no class label") as caught:
        mixed.class_counts(2)
    assert caught.value.reason == "LABELS_MISSING"
    with pytest.raises(DatasetUnfit, match="label the dataset, or train self-distilled"):
        next(iter(mixed.epoch(0))).required_labels()
    with pytest.raises(DatasetUnfit, match="class 5, and the model knows 0 to 1"):
        batches({0: 1, 5: 1}).class_counts(2)
    with pytest.raises(DatasetUnfit, match="no class label"):
        batches({None: 3}, resampling="balanced")
    assert batches({0: 3, 1: 1}).class_counts(3) == [3, 1, 0]


def test_a_sealed_dataset_is_read_in_any_order(tmp_path):
    import io

    from PIL import Image

    def encoded(value: int) -> bytes:
        stream = io.BytesIO()
        Image.new("RGB", (48, 32), (value, 0, 0)).save(stream, "png")
        return stream.getvalue()

    found = [FoundSample(f"{n}.png", encoded(20 * n), "image/png", n % 2) for n in range(6)]
    packs = list(write_packs(found, tmp_path))
    entries = sorted((pack.digest, pack.size_bytes) for pack in packs if pack.path)
    places = {digest: number for number, (digest, _) in enumerate(entries)}
    sealed = sorted(
        (
            ManifestSample(
                s.name, s.digest, s.size_bytes, s.media_type, places[s.pack_digest], s.pack_offset, s.label
            )
            for pack in packs
            for s in pack.samples
        ),
        key=lambda sample: sample.name,
    )
    manifest = DatasetManifest("classification", (), tuple(PackEntry(*e) for e in entries), tuple(sealed))
    reader = DatasetReader(manifest, {pack.digest: pack.path for pack in packs if pack.path})
    source = DatasetSource(reader)
    assert source.labels() == [0, 1, 0, 1, 0, 1]
    assert [(name, image.getpixel((0, 0))[0]) for name, image in source.read([4, 0, 5])] == [
        ("4.png", 80), ("0.png", 0), ("5.png", 100)
    ]  # fmt: skip


def test_options_are_read_by_name_and_refused_in_words():
    parameters = {"epochs": 3, "batch_size": 8, "flip": True, "objective": "labels", "profile": "arm"}
    assert from_parameters(TrainOptions, parameters).epochs == 3
    assert from_parameters(DataOptions, parameters) == DataOptions(batch_size=8, flip=True)
    assert from_parameters(ObjectiveOptions, parameters).objective == "labels"
    for wrong in (
        lambda: TrainOptions(optimizer="adam"),
        lambda: TrainOptions(learning_rate=0),
        lambda: TrainOptions(epochs=0),
        lambda: DataOptions(resampling="equal"),
        lambda: DataOptions(multi_scale=1.0),
        lambda: DataOptions(batch_size=0),
        lambda: ObjectiveOptions(loss="hinge"),
        lambda: ObjectiveOptions(temperature=0),
    ):
        with pytest.raises(EngineError) as caught:
            wrong()
        assert caught.value.reason == "TRAINING_OPTIONS_UNFIT"


def test_held_out_samples_are_shown_as_they_are_and_never_trained_on():
    found = [Sample(str(n), np.full((8, 8), n, np.uint8), class_index=n % 3) for n in range(40)]
    options = DataOptions(
        batch_size=7, held_out=0.25, flip=True, scale_jitter=0.3, color_jitter=0.5, resampling="balanced"
    )
    batches = ImageBatches(SampleList(found), SPEC_8, options)
    held_out = batches.held_out()
    assert held_out is not None
    assert (batches.samples, held_out.samples) == (30, 10)
    assert (len(batches), len(held_out)) == (5, 2)
    first, again = (list(held_out.epoch(number)) for number in (0, 1))
    judged = {name for batch in first for name in batch.names}
    trained = {name for number in range(3) for batch in batches.epoch(number) for name in batch.names}
    assert len(judged) == 10
    assert not judged & trained
    assert {name for batch in again for name in batch.names} == judged
    plain = {name: found[int(name)].image for name in judged}
    for batch in first:
        for name, value in zip(batch.names, batch.inputs["input"], strict=True):
            assert np.unique(value.numpy()).size == 1
            assert float(value.max()) == pytest.approx(float(plain[name][0, 0]) / 255, abs=1e-6)
    assert held_out.held_out() is None


@pytest.mark.parametrize(("count", "share"), [(1, 0.1), (5, 0.1), (39, 0.1), (80, 0.0)])
def test_too_few_samples_hold_none_out(count, share):
    found = [Sample(str(n), np.zeros((8, 8), np.uint8)) for n in range(count)]
    batches = ImageBatches(SampleList(found), SPEC_8, DataOptions(held_out=share))
    assert batches.held_out() is None
    assert batches.samples == count


def test_the_class_of_a_held_out_sample_is_checked_too():
    found = [Sample(str(n), np.zeros((8, 8), np.uint8), class_index=0) for n in range(10)]
    for index in range(10):
        wrong = [*found[:index], Sample("wrong", found[0].image, class_index=7), *found[index + 1 :]]
        with pytest.raises(DatasetUnfit, match="class 7, and the model knows 0 to 2"):
            ImageBatches(SampleList(wrong), SPEC_8, DataOptions(held_out=0.5)).class_counts(3)


def test_a_batch_knows_which_of_its_samples_have_a_class():
    found = [Sample(str(n), np.zeros((8, 8), np.uint8), class_index=n if n % 2 else None) for n in range(4)]
    (batch,) = ImageBatches(SampleList(found), SPEC_8, DataOptions()).epoch(0)
    assert sorted(batch.labels.tolist()) == [UNLABELLED, UNLABELLED, 1, 3]
    with pytest.raises(DatasetUnfit, match="have no class label"):
        batch.required_labels()


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (TrainOptions, {"learning_rate": float("nan")}),
        (TrainOptions, {"learning_rate": float("inf")}),
        (TrainOptions, {"weight_decay": float("nan")}),
        (TrainOptions, {"gradient_clip": -1.0}),
        (TrainOptions, {"average": 1.5}),
        (TrainOptions, {"epochs": 0}),
        (DataOptions, {"flip": True, "scale_jitter": float("nan")}),
        (DataOptions, {"samples": 0}),
        (DataOptions, {"held_out": 0.6}),
        (ObjectiveOptions, {"focal_gamma": float("nan")}),
        (ObjectiveOptions, {"temperature": float("inf")}),
    ],
)
def test_numbers_that_no_bound_catches_are_refused(kind, wrong):
    with pytest.raises(EngineError) as caught:
        kind(**wrong)
    assert caught.value.reason == "TRAINING_OPTIONS_UNFIT"
