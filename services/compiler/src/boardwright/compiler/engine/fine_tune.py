"""Pass ``fine-tune``: train an imported float graph a little further, as it is (pruned, say) and in float.

Pruning leaves a network that has to get used to what it lost. It is trained on labels, or self-distilled: the
baseline answers, the network learns to answer alike, and unlabelled images are enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.training.options import TrainOptions

if TYPE_CHECKING:
    import onnx

    from boardwright.compiler.engine.training.loop import Batches, OnStep, TrainRecord
    from boardwright.compiler.engine.training.objectives import MakeObjective


@dataclass(frozen=True, slots=True)
class FineTuned:
    """The trained graph. ``before`` and ``after`` are the objective's mean over the same batches."""

    model: onnx.ModelProto
    record: TrainRecord
    before: float
    after: float

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing, as sentences."""
        told = tuple(self.record.notes)
        if self.after < self.before:
            return told
        return (
            *told,
            f"Training did not help: the objective was {self.before:.4g} before and is {self.after:.4g} "
            "after it. Train with a lower learning_rate, for longer, or on more samples.",
        )

    def describe(self) -> dict[str, Any]:
        """Return the pass's record as JSON-able values."""
        return {
            "training": self.record.describe(),
            "objective_before": float(f"{self.before:.6g}"),
            "objective_after": float(f"{self.after:.6g}"),
        }


def fine_tune(
    model: onnx.ModelProto,
    batches: Batches,
    make_objective: MakeObjective,
    options: TrainOptions,
    *,
    teacher: onnx.ModelProto | None = None,
    held_out: Batches | None = None,
    memory_bytes: int | None = None,
    state_file: Path | None = None,
    on_step: OnStep = lambda step, steps, loss: None,
) -> FineTuned:
    """Train ``model`` (float32) and return it with its new weights.

    ``teacher`` is the graph whose answers a self-distilled objective learns; default ``model`` as it is.
    Batch norms that the graph still has are trained as such. ``held_out`` batches judge, before and after
    training and in between: the best weights are kept. Zeros of unstructured pruning stay zero.

    Raises:
        EngineError: TRAINING_DIVERGED, TRAINING_OPERATOR_UNSUPPORTED and others of ``training``.
        DatasetUnfit: TRAINING_EMPTY, LABELS_MISSING.
    """
    from boardwright.compiler.engine.training.loop import judge, train
    from boardwright.compiler.engine.training.network import to_onnx, to_torch
    from boardwright.compiler.engine.training.zeros import KeptZeros

    network = to_torch(model, fold_batch_norms=False)
    objective = make_objective(to_torch(teacher if teacher is not None else model), network)
    zeros = KeptZeros(network)
    judged = held_out if held_out is not None else batches
    before = judge(network, judged, objective)
    record = train(
        network,
        batches,
        objective,
        options,
        on_step,
        held_out=held_out,
        after_step=zeros.apply,
        memory_bytes=memory_bytes,
        state_file=state_file,
    )
    record.notes += [zeros.note] if zeros.note else []
    return FineTuned(to_onnx(network), record, before, judge(network, judged, objective))
