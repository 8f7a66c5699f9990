"""Training of imported graphs: what train-quantized, fine-tune, prune and distill share.

Every training pass works on the imported float ONNX graph, so that all checkpoint formats are served alike.

The contract, in the order in which a pass uses it:

1. ``network.to_torch(model) -> GraphNetwork``: a ``torch.nn.Module`` whose layers are real torch modules
   (``Conv2d``, ``Linear``, ``BatchNorm2d``…) with trainable parameters. ``network.graph`` is the prepared
   graph that it was made from (opset 13 or newer, constants folded; batch norms folded into the layers before
   them unless ``fold_batch_norms=False``). ``network(tensor)`` or ``network({"input": tensor})`` returns a
   tuple of outputs in the graph's order; any batch size works, whatever the graph's own is.
   ``network.layer(node_name)`` is the module of a node, ``network.constants[tensor_name]`` a constant that
   is no layer's (Reshape shapes, Split sizes, anchors): who changes a layer's shape changes these with it.
   ``network.tensors(inputs, names)`` returns activations by the graph's tensor names beside the outputs.
   ``network.taps[tensor_name] = function`` passes an activation through ``function`` (a fake quantizer).
2. ``data.ImageBatches(source, input_spec, DataOptions, seed)``: shuffled, augmented, resampled batches from
   ``data.SampleList`` (engine ``Sample`` objects) or ``data.DatasetSource`` (a sealed dataset's reader).
   Anything with ``__len__`` and ``epoch(number) -> Iterator[Batch]`` can stand in for it.
3. ``objectives``: what is minimised, as ``objective(network, batch)``, which returns a scalar tensor or a
   mapping of named terms that are summed. ``objectives.from_labels`` and ``objectives.from_teacher`` make the
   usual ones of the pure functions in ``losses``.
4. ``loop.train(network, batches, objective, TrainOptions, on_step) -> TrainRecord``: trains in place, keeps
   the time limit, stops early, and refuses what diverges (``divergence``). Held-out batches
   (``ImageBatches.held_out()``) choose which weights are kept. The record is the step's account of it.
5. ``network.to_onnx(network) -> ModelProto``: ``network.graph`` with the trained weights in it, at its own
   (fixed) batch size.

``options``: TrainOptions, DataOptions and ObjectiveOptions, each with what it costs and when it helps, and
reading them from a step's parameters; nothing but ``options`` may be imported without torch.
``objectives.chosen`` makes the objective that ObjectiveOptions ask for. ``memory`` cuts batches into parts
that fit, ``resuming`` keeps the state of an interrupted training, ``batching`` lets a graph of batch 1 run at
any batch size, ``layers`` and ``operators`` are its nodes as torch runs them, ``zeros`` keeps what
unstructured pruning removed. For quantization-aware
training ``quantization_places`` reads from a quantized graph where it rounds, and ``fake_quantize`` rounds
there while it trains.
"""
