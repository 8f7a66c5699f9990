"""Loss functions: pure functions of tensors. (N,) and (N, C) are a batch of N and C classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.training.options import CLASS_WEIGHTS


def class_weights(counts: Sequence[int], method: str) -> Tensor | None:
    """Return a weight for each class, (C,), from how many samples each has; None for ``none``.

    ``inverse``: proportional to 1 / count, with a mean of 1 over the samples. ``median-frequency``: the
    median count over the class's (Eigen and Fergus, https://arxiv.org/abs/1411.4734; used by SegNet): the
    same balance, in which a class of usual size weighs 1. Classes without samples weigh 0.

    Both let rare classes count as much as common ones: the mean over classes gains, the mean over samples
    usually loses.

    Raises:
        EngineError: TRAINING_OPTIONS_UNFIT for another method.
    """
    if method == "none":
        return None
    if method not in CLASS_WEIGHTS:
        raise EngineError(
            "TRAINING_OPTIONS_UNFIT",
            f"Class weights {method!r} are not known; choose one of {', '.join(CLASS_WEIGHTS)}.",
        )
    found = torch.tensor(counts, dtype=torch.float32)
    present = found > 0
    weights = torch.zeros_like(found)
    if not bool(present.any()):
        return None
    if method == "inverse":
        weights[present] = found.sum() / (present.sum() * found[present])
    else:
        weights[present] = found[present].quantile(0.5) / found[present]
    return weights


def cross_entropy(
    logits: Tensor, labels: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Return the mean cross-entropy of (N, C) logits and (N,) labels, each times its class's weight.

    The mean is over samples, not over their weights (as torch's): weights hold whatever else is in the batch,
    also where it has one sample, and a batch in parts has the gradient of the whole.
    ``smoothing`` moves that share of the probability to the other classes (Szegedy et al.,
    https://arxiv.org/abs/1512.00567): 0.1 keeps small labelled sets from being learnt by heart.
    """
    summed = functional.cross_entropy(
        logits, labels, weight=weights, label_smoothing=smoothing, reduction="sum"
    )
    return summed / max(1, len(labels))


def focal_loss(
    logits: Tensor, labels: Tensor, *, gamma: float = 2.0, weights: Tensor | None = None
) -> Tensor:
    """Return the mean focal loss (Lin et al., https://arxiv.org/abs/1708.02002): (1 - p)^gamma * -log p.

    Samples that are right already count little, so that hard and rare ones are not drowned. It helps where
    classes are lopsided, and is worth nothing where they are even.
    """
    log_chance = functional.log_softmax(logits, 1).gather(1, labels[:, None])[:, 0]
    loss = -((1 - log_chance.exp()) ** gamma) * log_chance
    return (loss if weights is None else loss * weights[labels]).mean()


def soft_label_loss(logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Return T² KL(teacher || student) of softened (N, C) logits (Hinton et al., arXiv:1503.02531).

    The factor T² keeps the gradient's size whatever the temperature.
    """
    student = functional.log_softmax(logits / temperature, 1)
    teacher = functional.log_softmax(teacher_logits / temperature, 1)
    divergence = functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def matching_loss(output: Tensor, wanted: Tensor, *, axis: int | None = None) -> Tensor:
    """Return the squared error over the wanted tensor's own variance: 0 equal, 1 as bad as its mean.

    Works for any output or feature. ``axis`` names an axis whose entries are of different kinds (boxes beside
    scores, channels) and are weighed alike, each by its own variance; None takes the tensor as a whole.
    """
    if axis is None:
        spread = wanted.var(correction=0)
        return functional.mse_loss(output, wanted) / spread.clamp(min=1e-12)
    others = [other for other in range(wanted.dim()) if other != axis % wanted.dim()]
    spread = wanted.var(dim=others, keepdim=True, correction=0)
    # Entries that hardly vary would otherwise outweigh everything: none counts more than ten usual ones.
    floor = (spread.median() * 0.1).clamp(min=1e-12)
    return ((output - wanted).square() / spread.clamp(min=floor)).mean()


def total(terms: Tensor | Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Return the sum of an objective's terms, and each term's value."""
    if isinstance(terms, Tensor):
        return terms, {}
    summed = torch.stack(list(terms.values())).sum()
    return summed, {name: float(value.detach()) for name, value in terms.items()}
