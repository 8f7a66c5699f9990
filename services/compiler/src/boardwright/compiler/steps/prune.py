"""The step ``compile/prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from boardwright.compiler.domain.passes import CALIBRATION
from boardwright.compiler.kinds import PRUNE
from boardwright.compiler.steps.files import (
    Feeds,
    check_information,
    clear_failures,
    notes_of,
    open_dataset,
    read_model,
    told_information,
    write_json,
    write_trained,
)
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements

if TYPE_CHECKING:
    import onnx

    from boardwright.compiler.engine.pruning import PrunedModel, SparseModel


@implements(PRUNE)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Prune the input ``model.onnx``, ranked and repaired by the dataset ``calibration``.

    Outputs: ``model.onnx``, ``checkpoint`` (the same graph: later passes train it further) and
    ``pruning.json``.
    """
    parameters = request.parameters
    with clear_failures():
        model, input_spec, _ = read_model(request)
        if parameters["structure"] == "weights":
            done: PrunedModel | SparseModel = _sparsify(model, parameters)
        else:
            feeds = Feeds(open_dataset(request, CALIBRATION), model, input_spec, parameters["samples"])
            done = _prune(model, list(feeds), parameters, request.seed, progress)
        finding = check_information(request, progress, done.model, model)
    described = done.describe()
    outputs = {
        **write_trained(request, done.model),
        "pruning.json": write_json(request, "pruning.json", {**described, **told_information(finding)}),
    }
    values = {
        "structure": parameters["structure"],
        **_values(described),
        "size_bytes": done.model.ByteSize(),
    }
    return StepResult(outputs, values, notes_of(*done.notes, finding=finding))


def _prune(
    model: onnx.ModelProto,
    feeds: list[dict[str, Any]],
    parameters: Any,
    seed: int,
    progress: Progress,
) -> PrunedModel:
    from boardwright.compiler.engine.pruning import PruneOptions, prune

    options = PruneOptions(
        amount=parameters["amount"],
        measure=parameters["measure"],
        scope=parameters["scope"],
        importance=parameters["importance"],
        layers=parameters["layers"],
        exclude=tuple(parameters["exclude"]),
        heads=parameters["heads"],
        max_ratio=parameters["max_ratio"],
        round_to=parameters["round_to"],
        rounds=parameters["rounds"],
        compensation=parameters["compensation"],
        seed=seed + int(parameters["seed"]),
    )
    return prune(model, feeds, options, progress=progress)


def _sparsify(model: onnx.ModelProto, parameters: Any) -> SparseModel:
    from boardwright.compiler.engine.errors import EngineError
    from boardwright.compiler.engine.pruning import sparsify

    if parameters["scope"] == "sensitivity":
        raise EngineError(
            "PRUNING_OPTIONS_UNFIT",
            "scope sensitivity is for channels. With structure weights, choose uniform or global.",
        )
    return sparsify(model, parameters["amount"], pattern=parameters["pattern"], scope=parameters["scope"])


def _values(described: dict[str, Any]) -> dict[str, Any]:
    """Return what of the record belongs into the step's values."""
    kept = (
        "before", "after", "removed", "output_error", "output_error_without_compensation",
        "compensated_layers", "sparsity", "compressed_before_bytes", "compressed_bytes",
    )  # fmt: skip
    found = {name: described[name] for name in kept if name in described}
    if "heads" in described:
        found["pruned_layers"] = len(described["layers"])
    return found
