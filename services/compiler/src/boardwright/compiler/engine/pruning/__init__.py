"""Pass ``prune``: fewer channels and heads (``prune``), or more zeros (``sparsity``).

- ``channels`` is the pass itself, ``options`` what it is asked and gives, ``sparsity`` its unstructured kind.
- ``dependencies`` follows channels through the graph by labels (``rules``, ``movement``: one rule per
  operator); ``units`` groups what goes together and knows what it costs; ``surgery`` removes it.
- ``importance``, ``taylor``: what a unit is worth. ``selection``, ``sensitivity``: how many go where.
- ``statistics``, ``compensation``: the kept channels stand in for the removed, without training.
- ``graph``, ``labels``: preparation and small parts.

Everything works on ONNX: a pruned model is a graph with narrower layers, which reloads, trains and quantizes
like any other. torch-pruning 1.6.1 was tried first: YOLOv8n ends in an IndexError behind its ``chunk``, and
YOLO11n was not traced after five CPU minutes and 12 GB. Following labels takes a tenth of a second on either.

>>> from boardwright.compiler.engine.pruning import PruneOptions, prune
>>> pruned = prune(model, feeds, PruneOptions(amount=0.3))  # doctest: +SKIP
"""

from boardwright.compiler.engine.pruning.channels import prune
from boardwright.compiler.engine.pruning.options import PrunedModel, PruneOptions
from boardwright.compiler.engine.pruning.sparsity import SparseModel, sparsify

__all__ = ["PruneOptions", "PrunedModel", "SparseModel", "prune", "sparsify"]
