"""The rules in the order in which they claim nodes; a node belongs to the first that claims it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.constant_channels import drop_constant_channels
from boardwright.compiler.engine.observe import TensorRange
from boardwright.compiler.engine.protect.answers import find_answers
from boardwright.compiler.engine.protect.attention import find_attention
from boardwright.compiler.engine.protect.conversions import conversions_caused, find_pockets
from boardwright.compiler.engine.protect.decode import find_selections, find_tail
from boardwright.compiler.engine.protect.exclusion import Exclusion
from boardwright.compiler.engine.protect.infinities import find_infinities
from boardwright.compiler.engine.protect.joins import find_joins, find_sums
from boardwright.compiler.engine.protect.normalization import find_normalizations
from boardwright.compiler.engine.protect.structure import Subject
from boardwright.compiler.engine.protect.weights import find_spread_weights
from boardwright.compiler.engine.scheme import QuantizationScheme

if TYPE_CHECKING:
    import onnx

Rule = Callable[[Subject, set[int]], list[tuple[Exclusion, set[int]]]]

RULES: Mapping[str, Rule] = {
    "join": find_joins,
    "tail": find_tail,
    "answer": find_answers,
    "sum": find_sums,
    "selection": find_selections,
    "attention": find_attention,
    "normalization": find_normalizations,
    "weights": find_spread_weights,
    "pocket": find_pockets,
}
"""Rules that need no run of the model, by name. Each gets the nodes already taken, and gives what it adds."""


def protect(
    model: onnx.ModelProto,
    ranges: Mapping[str, TensorRange],
    scheme: QuantizationScheme | None = None,
    *,
    rules: Iterable[str] | None = None,
) -> tuple[Exclusion, ...]:
    """Return what quantization has to leave alone in ``model``, whose nodes must all be named.

    ``ranges`` are those of a calibration record; ``scheme`` is the board's, by default U8S8 per-channel.
    ``rules`` are the names of those to apply, by default all.

    Raises:
        EngineError: RULE_UNKNOWN.
    """
    wanted = tuple(RULES) if rules is None else tuple(rules)
    unknown = [name for name in wanted if name not in RULES]
    if unknown:
        raise EngineError(
            "RULE_UNKNOWN", f"There is no rule {unknown[0]!r}; the rules are {', '.join(RULES)}."
        )
    # What the quantizer leaves out must not make a layer look unlike for one scale.
    subject = Subject(drop_constant_channels(model, ranges)[0], ranges, scheme)
    taken: set[int] = set()
    exclusions: list[Exclusion] = []
    applied = [find_infinities, *(rule for name, rule in RULES.items() if name in wanted)]
    for rule in applied:  # infinities cannot be rounded, whatever is asked for
        for exclusion, nodes in rule(subject, set(taken)):
            if nodes - taken:
                counted = conversions_caused(subject, nodes, taken)
                exclusions.append(replace(exclusion, conversions=counted))
                taken |= nodes
    return tuple(exclusions)
