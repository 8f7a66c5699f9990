"""What rounding begins with: a prepared graph, what calibration saw of it, what stays in floating point."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from boardwright.compiler.engine.feeds import Feed
from boardwright.compiler.engine.graph.constant_channels import drop_constant_channels
from boardwright.compiler.engine.graph.prepare import require_floats
from boardwright.compiler.engine.observe import CalibrationRecord, float_activations, observe
from boardwright.compiler.engine.protect import Exclusion, excluded_names, protect
from boardwright.compiler.engine.protect.exclusion import requested_exclusion
from boardwright.compiler.engine.scheme import QuantizationScheme

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A graph that can be rounded. ``note`` says in a sentence what was left out of it, or nothing."""

    model: onnx.ModelProto
    record: CalibrationRecord
    exclusions: tuple[Exclusion, ...]
    note: str = ""

    @property
    def excluded(self) -> set[str]:
        """The names of the nodes that stay in floating point."""
        return excluded_names(self.exclusions)


def calibrate(
    prepared: onnx.ModelProto,
    feeds: Iterable[Feed],
    scheme: QuantizationScheme,
    *,
    record: CalibrationRecord | None = None,
    exclusions: tuple[Exclusion, ...] | None = None,
    exclude: Iterable[str] = (),
    rules: Iterable[str] | None = None,
    threads: int = 0,
    on_sample: Callable[[int], None] = lambda _: None,
) -> Calibrated:
    """Return ``prepared`` without weights that multiply channels which never change, and what is known of it.

    ``feeds`` are observed where no ``record`` of an earlier ``observe`` is given. ``exclusions`` are those of
    an earlier ``protect``; else the ``rules`` (None: all) are applied. ``exclude`` names further nodes.

    Raises:
        DatasetUnfit, EngineError: see ``observe``; RECORD_UNFIT.
        QuantizationFailed: ALREADY_QUANTIZED, NODE_UNKNOWN.
    """
    require_floats(prepared)
    if record is None:
        record = observe(prepared, feeds, threads=threads, on_sample=on_sample)
    record.require(float_activations(prepared))
    model, dropped = drop_constant_channels(prepared, record.ranges)
    if exclusions is None:
        exclusions = protect(model, record.ranges, scheme, rules=rules)
    return Calibrated(model, record, (*exclusions, *requested_exclusion(model, exclude)), dropped.note)
