import contextlib
import io
from typing import Any

import numpy as np
import pytest

from boardwright.model import ClassificationMeter, DetectionMeter, Detections, ModelError, top_k_hits


def test_top_k_breaks_ties_by_index_and_ignores_nan() -> None:
    scores = np.array([[0.5, 0.5, 0.1], [0.5, 0.5, 0.1], [np.nan, 1, 0]])
    assert top_k_hits(scores, np.array([0, 1, 1]), 1).tolist() == [True, False, False]
    assert top_k_hits(scores, np.array([0, 1, 1]), 2).tolist() == [True, True, False]


def test_classification_meter_counts_over_batches() -> None:
    meter = ClassificationMeter(6)
    meter.update(np.eye(6), np.array([0, 1, 2, 3, 4, 0]))
    meter.update(np.eye(6)[:2], np.array([5, 1]))
    assert (meter.count, meter.top1) == (8, 75.0)
    assert meter.per_class[:, 0].tolist() == [1, 2, 1, 1, 1, 0]
    assert meter.per_class[:, 1].tolist() == [2, 2, 1, 1, 1, 1]
    assert meter.triples()[:3] == [(0, 0, 1), (0, 5, 1), (1, 1, 2)]
    assert meter.answered().tolist() == [2, 2, 1, 1, 1, 1]
    assert ClassificationMeter(3).top1 == 0.0
    with pytest.raises(ModelError, match="labels must be 0 to 5, these are 1 to 6"):
        meter.update(np.eye(6)[:2], np.array([6, 1]))


Image = tuple[Detections, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def random_images(seed: int, *, crowds: bool = False, many: bool = False) -> list[Image]:
    """(detections, boxes, classes, crowd, areas) of 40 images; objects of all sizes, some found badly."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(40):
        count = int(random.integers(0, 8))
        corner = random.uniform(0, 80, (count, 2))
        size = random.uniform(8, 40, (count, 2)) * random.choice([1, 2, 5], (count, 1))
        truths = np.concatenate([corner, corner + size], axis=1)
        classes = random.integers(0, 4, count)
        found = np.repeat(truths, 3, axis=0) + random.normal(0, 3, (count * 3, 4))
        noise = random.uniform(0, 60, (140 if many else 5, 2))
        found = np.concatenate([found, np.concatenate([noise, noise + 20], axis=1)])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        labels = np.concatenate([np.repeat(classes, 3), random.integers(0, 1 if many else 5, len(noise))])
        scores = np.round(random.uniform(0, 1, len(found)), 2).astype(np.float32)
        crowd = random.uniform(size=count) < (0.3 if crowds else 0)
        areas = size.prod(axis=1) * (random.uniform(0.4, 1, count) if crowds else 1)
        images.append((Detections(found.astype(np.float32), scores, labels), truths, classes, crowd, areas))
    return images


def coco_evaluation(images: list[Image]) -> Any:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    truths: list[dict[str, object]] = []
    found: list[dict[str, object]] = []
    for image, (detections, boxes, classes, crowd, areas) in enumerate(images, start=1):
        for box, index, group, area in zip(boxes, classes, crowd, areas, strict=True):
            size = [box[2] - box[0], box[3] - box[1]]
            truths.append(
                {"id": len(truths) + 1, "image_id": image, "category_id": int(index), "iscrowd": int(group),
                 "bbox": [box[0], box[1], *size], "area": float(area)}
            )  # fmt: skip
        rows = zip(detections.boxes.astype(float), detections.scores, detections.classes, strict=True)
        for box, score, index in rows:
            found.append(
                {"image_id": image, "category_id": int(index), "score": float(score),
                 "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
            )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = coco.COCO()
        dataset.dataset = {
            "info": {},
            "images": [{"id": n} for n in range(1, len(images) + 1)],
            "categories": [{"id": n} for n in range(5)],
            "annotations": truths,
        }
        dataset.createIndex()
        evaluation = cocoeval.COCOeval(dataset, dataset.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize(
    ("seed", "settings"),
    [(1, {}), (2, {}), (3, {"crowds": True}), (4, {"crowds": True}), (5, {"crowds": True, "many": True})],
)
def test_detection_meter_equals_pycocotools(seed: int, settings: dict[str, bool]) -> None:
    """All twelve figures, and every class's own: crowds, sizes, more than 100 detections of a class."""
    images = random_images(seed, **settings)
    meter = DetectionMeter()
    for detections, boxes, classes, crowd, areas in images:
        meter.update(detections, boxes, classes, crowd, areas)
    scores = meter.scores()
    reference = coco_evaluation(images)
    sizes = [scores.by_size[name] for name in ("small", "medium", "large")]
    figures = [scores.map50_95, scores.map50, scores.map75, *sizes, *scores.recall.values()]
    np.testing.assert_allclose(figures, 100 * reference.stats[:9], atol=1e-6)
    assert 10 < scores.map50_95 < scores.map50 < 90
    precision = reference.eval["precision"]  # (thresholds, recalls, classes, areas, limits)
    for index, entry in scores.classes.items():
        assert entry.map50_95 == pytest.approx(100 * precision[:, :, index, 0, -1].mean(), abs=1e-6)
        assert entry.map50 == pytest.approx(100 * precision[0, :, index, 0, -1].mean(), abs=1e-6)
        recall = reference.eval["recall"][:, index, 0, -1].mean()
        assert entry.recall == pytest.approx(100 * recall, abs=1e-6)
        for area, name in enumerate(("small", "medium", "large"), start=1):
            expected = precision[:, :, index, area, -1].mean()
            assert (entry.by_size[name] is None) == (expected == -1)
            if entry.by_size[name] is not None:
                assert entry.by_size[name] == pytest.approx(100 * expected, abs=1e-6)
    assert scores.truths == sum(entry.truths for entry in scores.classes.values()) == meter.truths


def test_perfect_detections_score_100_and_none_scores_0() -> None:
    boxes, classes = np.array([[1, 2, 30, 40.0], [5, 5, 60, 60]]), np.array([0, 3])
    perfect, blind = DetectionMeter(), DetectionMeter()
    perfect.update(
        Detections(boxes.astype(np.float32), np.array([0.9, 0.8], np.float32), classes), boxes, classes
    )
    empty = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.intp))
    blind.update(empty, boxes, classes)
    assert perfect.scores().map50_95 == pytest.approx(100)
    assert blind.scores().map50 == 0 and blind.scores().truths == 2
    assert DetectionMeter().scores().map50_95 == 0
