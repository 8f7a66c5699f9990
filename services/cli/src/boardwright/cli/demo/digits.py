"""Trains the digits network: `python -m boardwright.cli.demo.digits FOLDER`.

scikit-learn's handwritten digits (1797 real images of 8×8 pixels, inside the package) are split by a fixed
seed into training, calibration and evaluation, which share no image. FOLDER then holds

    digits.pt            the weights, as `torch.save(state_dict)` writes them
    network.py           the module that builds the network
    input-spec.json, output-spec.json
    calibration/, evaluation/   PNG files, one folder a class
    made.json            what it was made from, and the accuracy on the evaluation images

Progress goes to standard output, one JSON object a line.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import sys
from pathlib import Path
from typing import Any

SEED = 20261121
EPOCHS = 4
BATCH = 32
PEAK_RATE, MOMENTUM, WEIGHT_DECAY = 0.05, 0.9, 5e-4
SIDE = 32
MEAN, STD = 0.3, 0.35
CALIBRATION_COUNT, EVALUATION_COUNT = 200, 500


def main() -> None:
    """Train into the folder named on the command line."""
    folder = Path(sys.argv[1])
    _tell(0, EPOCHS, "loading torch and scikit-learn")
    images, labels = _load()
    order = list(range(len(images)))
    random.Random(SEED).shuffle(order)  # noqa: S311 - a split, not a secret
    calibration = order[:CALIBRATION_COUNT]
    evaluation = order[CALIBRATION_COUNT : CALIBRATION_COUNT + EVALUATION_COUNT]
    training = order[CALIBRATION_COUNT + EVALUATION_COUNT :]
    _write_images(folder / "calibration", images, labels, calibration)
    _write_images(folder / "evaluation", images, labels, evaluation)
    top1 = _train(folder, images, labels, training, evaluation)
    _write_specs(folder)
    shutil.copyfile(Path(__file__).with_name("network.py"), folder / "network.py")
    made = {"from": sys.argv[2] if len(sys.argv) > 2 else "", "top1": top1, "training_images": len(training)}
    (folder / "made.json").write_text(json.dumps(made))


def _load() -> tuple[Any, Any]:
    """Images as uint8 [1797, 8, 8] (0 to 255) and labels [1797]."""
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target


def _write_images(folder: Path, images: Any, labels: Any, chosen: list[int]) -> None:
    from PIL import Image

    shutil.rmtree(folder, ignore_errors=True)
    for index in chosen:
        path = folder / str(labels[index]) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[index]).save(path)


def _train(folder: Path, images: Any, labels: Any, training: list[int], evaluation: list[int]) -> float:
    import torch

    from boardwright.cli.demo.network import build_network

    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # so small a network gains nothing from more, and the result stays the same
    torch.use_deterministic_algorithms(True)
    network = build_network()
    inputs, targets = _tensors(images, labels)
    order = torch.tensor(training)
    step, steps = 0, EPOCHS * -(-len(training) // BATCH)
    moments = [torch.zeros_like(weight) for weight in network.parameters()]
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in order[torch.randperm(len(order))].split(BATCH):
            loss = torch.nn.functional.cross_entropy(network(inputs[batch]), targets[batch])
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            rate = PEAK_RATE * min(1.0, 5 * step / steps) * 0.5 * (1 + math.cos(math.pi * step / steps))
            _descend(network, gradients, moments, rate)
            step += 1
            total += float(loss.detach()) * len(batch)
        _tell(epoch + 1, EPOCHS, f"training: epoch {epoch + 1} of {EPOCHS}, loss {total / len(order):.3f}")
    network.eval()
    with torch.inference_mode():
        held_out = torch.tensor(evaluation)
        right = network(inputs[held_out]).argmax(1) == targets[held_out]
    torch.save(network.state_dict(), folder / "digits.pt")
    return float(right.double().mean())


def _descend(network: Any, gradients: Any, moments: list[Any], rate: float) -> None:
    """One step of gradient descent with momentum (Polyak 1964) and weight decay.

    `torch.optim` does the same, but importing it costs more than this whole training.
    """
    import torch

    with torch.no_grad():
        for weight, gradient, moment in zip(network.parameters(), gradients, moments, strict=True):
            moment.mul_(MOMENTUM).add_(gradient).add_(weight, alpha=WEIGHT_DECAY)
            weight.sub_(moment, alpha=rate)


def _tensors(images: Any, labels: Any) -> tuple[Any, Any]:
    """What the input spec makes of the images: the very preprocessing that the device will use."""
    import torch

    from boardwright.model import InputSpec, preprocess

    spec = InputSpec.from_json(input_spec())
    pixels = [torch.from_numpy(preprocess(image[:, :, None], spec)[0]) for image in images]
    return torch.stack(pixels).reshape(-1, 1, SIDE, SIDE), torch.from_numpy(labels).long()


def input_spec() -> dict[str, Any]:
    """The network's input."""
    from boardwright.model import InputSpec

    spec = InputSpec(
        name="image", height=SIDE, width=SIDE, channels=1, color="GRAY", mean=(MEAN,), std=(STD,)
    )
    return spec.to_json()


def _write_specs(folder: Path) -> None:
    from boardwright.model import OutputSpec

    output = OutputSpec(
        task="classification",
        head="logits",
        num_classes=10,
        labels=tuple(str(digit) for digit in range(10)),
    )
    (folder / "input-spec.json").write_text(json.dumps(input_spec(), indent=2))
    (folder / "output-spec.json").write_text(json.dumps(output.to_json(), indent=2))


def _tell(done: int, total: int, what: str) -> None:
    sys.stdout.write(json.dumps({"done": done, "total": total, "what": what}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
