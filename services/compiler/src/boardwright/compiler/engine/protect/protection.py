"""Pass ``protect`` as a whole: rules, measured rules, sensitivity, budget, into what ``quantize`` reads."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError, QuantizationFailed
from boardwright.compiler.engine.graph.constant_channels import drop_constant_channels
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.observe import CalibrationRecord, Feed, float_activations, observe
from boardwright.compiler.engine.protect.budget import Budget, BudgetResult, Verification, fit_budget
from boardwright.compiler.engine.protect.conversions import count_conversions, integer_nodes
from boardwright.compiler.engine.protect.exclusion import (
    Exclusion,
    excluded_names,
    requested_exclusion,
)
from boardwright.compiler.engine.protect.latency import LayerTimes, latency_model
from boardwright.compiler.engine.protect.measured import MEASURED_RULES, measured_exclusions
from boardwright.compiler.engine.protect.metric import TaskMetric
from boardwright.compiler.engine.protect.rules import RULES, protect
from boardwright.compiler.engine.protect.sensitivity import Sensitivity, measure_sensitivity
from boardwright.compiler.engine.protect.structure import Subject
from boardwright.compiler.engine.scheme import QuantizationScheme

if TYPE_CHECKING:
    import onnx

SCHEMA = "boardwright.protection.v1"
ALL_RULES = (*RULES, *MEASURED_RULES)


@dataclass(frozen=True, slots=True)
class ProtectionOptions:
    """What to look for. ``rules`` are names of ``ALL_RULES``; ``exclude`` names further nodes.

    ``sensitivity`` measures what each unit costs, ``measured_units`` of them alone, and what the metric loses
    by each of the ``metric_layers`` most sensitive ones. At most ``samples`` feeds are measured on, by it and
    by the rules that measure. ``budget`` is what may be lost; it needs a metric as well. ``times`` are
    measured times of layers.
    """

    rules: tuple[str, ...] = ALL_RULES
    exclude: tuple[str, ...] = ()
    sensitivity: bool = True
    samples: int = 4
    measured_units: int = 24
    metric_layers: int = 0
    budget: Budget = field(default_factory=Budget)
    times: LayerTimes | None = None

    def __post_init__(self) -> None:
        for rule in self.rules:
            if rule not in ALL_RULES:
                near = difflib.get_close_matches(rule, ALL_RULES, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise EngineError(
                    "RULE_UNKNOWN",
                    f"There is no rule {rule!r}.{hint} The rules are {', '.join(ALL_RULES)}.",
                )


@dataclass(frozen=True, slots=True)
class Protection:
    """What stays in floating point, why, and what was measured to decide it.

    ``conversions`` is how many tensors pass between integers and floats in the whole graph.
    """

    scheme: QuantizationScheme
    exclusions: tuple[Exclusion, ...]
    conversions: int
    sensitivity: Sensitivity | None = None
    budget: BudgetResult | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the file ``protection.json`` as JSON-able values."""
        return {
            "schema": SCHEMA,
            "scheme": self.scheme.label,
            "exclusions": [found.to_json() for found in self.exclusions],
            "conversions": self.conversions,
            "sensitivity": self.sensitivity.to_json() if self.sensitivity else [],
            "sensitivity_method": self.sensitivity.describe() if self.sensitivity else {},
            "budget": self.budget.to_json() if self.budget else {},
        }


def read_exclusions(values: Mapping[str, Any]) -> tuple[Exclusion, ...]:
    """Return the exclusions of a ``protection.json``.

    Raises:
        EngineError: PROTECTION_UNKNOWN, when it is of another schema.
    """
    if values.get("schema") != SCHEMA:
        raise EngineError("PROTECTION_UNKNOWN", f"This is no protection of schema {SCHEMA}: protect again.")
    return tuple(Exclusion.from_json(found) for found in values["exclusions"])


def protect_model(
    model: onnx.ModelProto,
    feeds: Callable[[], Iterable[Feed]],
    scheme: QuantizationScheme,
    options: ProtectionOptions | None = None,
    *,
    record: CalibrationRecord | None = None,
    metric: Callable[[], TaskMetric] | None = None,
    verify: Callable[[], TaskMetric] | None = None,
    threads: int = 0,
    on_stage: Callable[[str], None] = lambda _: None,
) -> Protection:
    """Return what of the float32 ``model`` has to stay in floating point under ``scheme``.

    ``feeds`` gives the preprocessed calibration samples each time it is called. ``record`` saves observing
    them. ``metric`` makes the task metric that a budget on the loss is met by, and ``verify`` one on other
    samples, on which the choice is judged afterwards.

    Raises:
        QuantizationFailed: NODE_UNKNOWN; see ``prepare_graph``.
        EngineError: METRIC_MISSING, when a loss is bounded and there is no metric; RECORD_UNFIT; see
            ``observe``.
    """
    from boardwright.compiler.engine.recover.ranges import choose_ranges

    options = options or ProtectionOptions()
    prepared = prepare_graph(model)
    if record is None:
        on_stage("observing")
        record = observe(prepared, feeds(), threads=threads)
    record.require(float_activations(prepared))
    prepared, _ = drop_constant_channels(prepared, record.ranges)
    on_stage("looking at structure and ranges")
    found = list(
        protect(prepared, record.ranges, scheme, rules=[rule for rule in options.rules if rule in RULES])
    )
    found += requested_exclusion(prepared, options.exclude)
    chosen, _ = choose_ranges(prepared, record, scheme, excluded_names(found))
    subject = Subject(prepared, chosen.ranges, scheme)
    measured = [rule for rule in options.rules if rule in MEASURED_RULES]
    if measured:
        on_stage("trying what may pay")
        names = excluded_names(found)
        found += measured_exclusions(
            subject, islice(feeds(), options.samples), chosen, names, rules=measured, threads=threads
        )
    sensitivity = None
    if options.sensitivity or not options.budget.is_open:
        on_stage("measuring sensitivity")
        sensitivity = measure_sensitivity(
            subject,
            islice(feeds(), options.samples),
            excluded=excluded_names(found),
            measured_units=options.measured_units,
            threads=threads,
        )
    budget = None
    if sensitivity is not None and (options.metric_layers or not options.budget.is_open):
        trial = _Trial(model, subject, record, _metric(metric, options))
        if options.metric_layers:
            on_stage("measuring what the most sensitive layers lose")
            sensitivity = trial.with_drops(sensitivity, options.metric_layers)
        if not options.budget.is_open:
            on_stage("fitting the budget")
            budget = trial.fit(sensitivity, found, options, verify)
            found += [budget.exclusion] if budget.exclusion else []
    out = {index for index, node in enumerate(subject.nodes) if node.name in excluded_names(found)}
    conversions = count_conversions(subject, integer_nodes(subject, out))
    return Protection(scheme, tuple(found), conversions, sensitivity, budget)


def _metric(make: Callable[[], TaskMetric] | None, options: ProtectionOptions) -> TaskMetric | None:
    if options.budget.max_drop is None and not options.metric_layers:
        return None
    if make is None:
        raise EngineError(
            "METRIC_MISSING",
            "A loss can only be bounded where it can be measured: give samples and an output spec, or leave "
            "max_drop and metric_layers out.",
        )
    return make()


@dataclass(frozen=True, slots=True)
class _Trial:
    """Models that are quantized on trial, and what they lose."""

    model: onnx.ModelProto
    subject: Subject
    record: CalibrationRecord
    metric: TaskMetric | None

    def build(self, excluded: set[str]) -> onnx.ModelProto:
        """Quantize without the named nodes; where none is left, that is the float model."""
        from boardwright.compiler.engine.quantize import quantize

        kept = Exclusion("budget", tuple(sorted(excluded)), "")
        try:
            return quantize(self.model, (), self.subject.scheme, record=self.record, exclusions=(kept,)).model
        except QuantizationFailed as error:
            if error.reason != "NOTHING_TO_QUANTIZE":
                raise
            return self.model

    def with_drops(self, sensitivity: Sensitivity, count: int) -> Sensitivity:
        """Return the sensitivity with what the worst layers, each quantized alone, lose of the metric."""
        assert self.metric is not None
        names = {node.name for node in self.subject.nodes}
        layers = {self.subject.nodes[index].name for index in self.subject.layers}
        worst = [unit.node for unit in sensitivity.worst(len(sensitivity.units)) if unit.node in layers]
        drops = {node: round(self.metric.drop(self.build(names - {node})), 4) for node in worst[:count]}
        units = tuple(
            replace(unit, metric_drop=drops.get(unit.node, unit.metric_drop)) for unit in sensitivity.units
        )
        return replace(sensitivity, units=units, metric=self.metric.name)

    def fit(
        self,
        sensitivity: Sensitivity,
        exclusions: Sequence[Exclusion],
        options: ProtectionOptions,
        verify: Callable[[], TaskMetric] | None,
    ) -> BudgetResult:
        """Meet the budget on the metric's samples, then judge the choice on others."""
        metric = self.metric if options.budget.max_drop is not None else None
        found = fit_budget(
            self.subject,
            sensitivity,
            exclusions,
            options.budget,
            latency_model(self.subject, options.times),
            build=self.build,
            drop=metric.drop if metric else lambda _: math.nan,
            metric=metric.name if metric else "none",
        )
        if metric is None or verify is None or not found.trials:
            return found
        others = verify()
        kept = excluded_names([*exclusions, *([found.exclusion] if found.exclusion else [])])
        return replace(found, verified=Verification(others.name, others.drop(self.build(set(kept)))))
