"""The step ``compile/profile``."""

from __future__ import annotations

from boardwright.compiler.domain import passes
from boardwright.compiler.kinds import PROFILE
from boardwright.compiler.steps.files import (
    clear_failures,
    host_values,
    one_feed,
    read_model,
    write_bytes,
    write_json,
)
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements


@implements(PROFILE)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Profile the input ``model.onnx`` on a sample of ``calibration``, or on noise where there is none.

    Outputs: ``profile.json``, ``trace.json`` (open it in chrome://tracing or Perfetto).
    """
    from boardwright.compiler.engine.profiling import profile_graph

    parameters = request.parameters
    with clear_failures():
        progress(0, 0, "profiling")
        model, input_spec, _ = read_model(request)
        found = profile_graph(
            model,
            one_feed(request, model, input_spec),
            threads=parameters["threads"],
            runs=parameters["runs"],
            torch=parameters["torch"],
        )
        host = host_values()
        outputs = {
            passes.PROFILE: write_json(request, passes.PROFILE, {**found.describe(), "host": host}),
            "trace.json": write_bytes(request, "trace.json", found.runtime.trace),
        }
    total = sum(kernel.milliseconds for kernel in found.runtime.kernels) or 1.0
    values = {
        "run_ms": found.runtime.run_ms,
        "threads": found.runtime.threads,
        "macs": found.costs.macs,
        "parameters": found.costs.parameters,
        "weight_bytes": found.costs.weight_bytes,
        "peak_activation_bytes": found.costs.peak_activation_bytes,
        "costliest": [
            {
                "name": kernel.node,
                "operator": kernel.operator,
                "ms": kernel.milliseconds,
                "share": kernel.milliseconds / total,
                "macs": kernel.macs,
            }
            for kernel in found.costliest()
        ],
        "host": host,
    }
    return StepResult(
        outputs, values, (found.torch_note,) if found.torch_note and parameters["torch"] else ()
    )
