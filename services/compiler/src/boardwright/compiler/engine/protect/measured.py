"""Rules that pay or do not, model by model: first and last layers, gates, scores, each tried by measuring.

Custom keeps the first and the last layer in floating point. On most networks that buys nothing and costs
latency. Here a group stays in floating point only if the outputs' noise falls by a quarter without it, and
its multiplications are few.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import with_outputs
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.graph.topology import describe
from boardwright.compiler.engine.observe import CalibrationRecord, Feed
from boardwright.compiler.engine.protect.attention import score_layers
from boardwright.compiler.engine.protect.conversions import conversions_caused
from boardwright.compiler.engine.protect.exclusion import Exclusion
from boardwright.compiler.engine.protect.sensitivity import answers
from boardwright.compiler.engine.protect.structure import Subject, with_followers
from boardwright.compiler.engine.sqnr import decibels, noise_ratio

if TYPE_CHECKING:
    import onnx

MEASURED_RULES = ("first", "last", "gate", "scores")

_PAYS_DB = 1.25
"""A quarter less noise. On MobileNetV1, YOLOv5n and YOLO11n such groups bring from -0.5 to 1.0 dB (see
docs/benchmarks.md): half of it would take YOLOv5n's first layer, twice of it changes nothing there."""
_MOST_MACS = 0.1
_POOLS = frozenset({"GlobalAveragePool", "ReduceMean"})
_GATES = frozenset({"Sigmoid", "HardSigmoid", "Clip", "HardSwish"})
_LONGEST_GATE = 12


def measured_exclusions(
    subject: Subject,
    feeds: Iterable[Feed],
    record: CalibrationRecord,
    excluded: Collection[str] = (),
    *,
    rules: Collection[str] = MEASURED_RULES,
    threads: int = 0,
) -> tuple[Exclusion, ...]:
    """Return the groups of nodes that pay on ``feeds``, a few of them, each with what it buys in its reason.

    Each group is tried with the real quantizer: where a float layer's output is read on integers, it is
    rounded there, and only a run tells what is left of the gain.

    Raises:
        DatasetUnfit, QuantizationFailed, EngineError: see ``insert_quantization`` and ``open_session``.
    """
    kept = {index for index, node in enumerate(subject.nodes) if node.name in set(excluded)}
    total = max(sum(subject.macs.values()), 1)
    groups = {}
    for rule, layers in candidate_groups(subject).items():
        nodes = {member for layer in layers for member in with_followers(subject, layer)} | layers
        nodes = {member for member in nodes - kept if subject.may_be_integer(member)}
        share = sum(subject.macs.get(index, 0) for index in nodes) / total
        if rule in rules and nodes and share <= _MOST_MACS:
            groups[rule] = nodes, share
    samples = list(feeds) if groups else []
    if not samples:
        return ()
    judge = _Judge(subject, record, samples, threads)
    everything = judge.sqnr_db(kept)
    found = []
    for rule, (nodes, share) in groups.items():
        gain = judge.sqnr_db(kept | nodes) - everything
        if gain < _PAYS_DB:
            continue
        reason = _reason(subject, rule, nodes, gain, share, len(samples))
        conversions = conversions_caused(subject, nodes, kept)
        found.append(Exclusion(rule, subject.names(nodes), reason, conversions))
    return tuple(found)


class _Judge:
    """Quantizes for real and compares the answers with those of FP32.

    One sample tells little: by floats in YOLO11n's first layer the noise of three of them fell by 4.8 dB,
    rose by 3.8 and fell by 8.7.
    """

    def __init__(
        self, subject: Subject, record: CalibrationRecord, samples: Sequence[Feed], threads: int
    ) -> None:
        self._subject, self._record, self._samples, self._threads = subject, record, samples, threads
        self._answers = answers(subject)
        self._reference = self._run(subject.model)

    def sqnr_db(self, excluded: Collection[int]) -> float:
        """Return what the outputs keep with these nodes in floating point, balanced over their channels."""
        from boardwright.compiler.engine.quantize import insert_quantization

        names = set(self._subject.names(excluded))
        quantized = insert_quantization(self._subject.model, self._record, self._subject.scheme, names)
        ratios = map(noise_ratio, self._run(quantized), self._reference)
        return decibels(sum(ratios) / len(self._reference))

    def _run(self, model: onnx.ModelProto) -> list[list[Any]]:
        session = open_session(with_outputs(model, self._answers), threads=self._threads)
        return [session.run(self._answers, feed) for feed in self._samples]


def candidate_groups(subject: Subject) -> dict[str, set[int]]:
    """Return by rule the nodes whose protection may pay."""
    topology = subject.topology
    behind = topology.walk(subject.layers, topology.consumers, lambda _: False)
    first = set(subject.layers - behind)
    groups = {
        "first": first,
        "last": set(subject.topology.last_layers),
        "gate": gates(subject),
        "scores": score_layers(subject),
    }
    return {rule: nodes for rule, nodes in groups.items() if nodes}


def gates(subject: Subject) -> set[int]:
    """Return the layers of squeeze-excite gates: pooled, squeezed, and multiplied with what was pooled."""
    topology = subject.topology
    found: set[int] = set()
    for index, node in enumerate(subject.nodes):
        if node.op_type != "Mul" or len(topology.producers(index)) != 2:
            continue
        for gate in topology.producers(index):
            other = next((name for name in topology.producers(index) if name != gate), None)
            if other is None or subject.nodes[gate].op_type not in _GATES | {"Mul", "Div"}:
                continue
            before = topology.walk(
                [gate], topology.producers, lambda node: subject.nodes[node].op_type in _POOLS
            )
            pools = {
                producer
                for member in before | {gate}
                for producer in topology.producers(member)
                if subject.nodes[producer].op_type in _POOLS
            }
            small = len(before) <= _LONGEST_GATE and 1 <= len(before & subject.layers) <= 3
            if small and any(other in topology.producers(pool) for pool in pools):
                found |= {member for member in before | {gate} if member not in pools}
    return found


def _reason(subject: Subject, rule: str, nodes: set[int], gain: float, share: float, samples: int) -> str:
    layers = sorted(nodes & subject.layers)
    named = ", ".join(describe(subject.nodes[index]) for index in layers[:3])
    more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
    what = {
        "first": "read the input",
        "last": "give the answer, and round it to 256 steps",
        "gate": "weigh channels from a few pooled values",
        "scores": "make the scores of a softmax, which turns a step into a factor",
    }[rule]
    return (
        f"{named}{more} {what}: measured on {samples} samples, the outputs' noise falls by {gain:.1f} dB "
        f"without their rounding, for {100 * share:.1f} % of the multiplications."
    )
