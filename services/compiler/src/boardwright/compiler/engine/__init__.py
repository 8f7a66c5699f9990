"""The compression engine: a library that needs no server, one module per pass.

- ``importing`` (pass ``import``): a checkpoint of any format becomes ONNX with InputSpec and OutputSpec.
  ``checkpoint/`` judges the file first; ``export`` and ``specs`` do the parts.
- ``observe``: ranges and histograms of activations over samples, in constant memory, for every method and
  toolchain.
- ``protect/``: what must stay in floating point, and why, in sentences; sensitivity, budgets, causes.
- ``recover/``: gives back what rounding took, without labels: ranges, bias correction, equalisation,
  block-wise reconstruction, learned rounding; ``integer_outputs``: what leaves the integers keeps more.
- ``quantize``: static INT8 by a ``scheme``; it observes, protects, recovers, and checks its result.
  ``grid``: what weights are rounded to; ``power_of_two``: the scales of boards that shift instead of
  multiplying; ``indexed``: ONNX Runtime's quantizer, fast on large graphs; ``integer_softmax``: what its
  kernels need room for.
- ``float16`` (pass ``convert-float16``): half precision but for what would overflow or lose its digits.
- ``evaluate/``: accuracy, parity with the baseline, and (``quality``) whether information was lost.
- ``train_quantized``: training that rounds where the device will (QAT), with labels or self-distilled.
- ``fine_tune``: training a graph further as it is. ``training/``: what all training passes share.
- ``distill/``: learning from a teacher, another model: soft labels, features, boxes; ``training/ultralytics``
  trains Ultralytics files by Ultralytics' own trainer, with the architecture they have.
- ``pruning/`` (pass ``prune``): fewer channels and heads, or more zeros.
- ``select``: candidates from cheap to dear under constraints, each rejected one with its reason.
- ``report/``: all of it as one page of tables and plots, HTML or Markdown.
- ``graph/``: topology, preparation, sessions. ``limits``, ``errors``: bounds and refusals.

Each pass is a function over ``onnx.ModelProto`` with a record of its own; no pass changes what it is given.
Step by step (``quantize(model, feeds(), scheme)`` alone does the same with the defaults)::

    model = import_checkpoint(path, Declared(input_spec=input_spec, output_spec=output_spec)).model

    def feeds():
        return (feed_of(image, input_spec) for image in images)

    record = observe(prepare_graph(model), feeds())
    kept = protect_model(model, feeds, scheme, record=record).exclusions
    specs = input_spec, output_spec
    recovered = recover(model, feeds, scheme, record=record, exclusions=kept, specs=specs).file()
    small = quantize(model, (), scheme, record=record, exclusions=kept, recovered=recovered).model
    told = evaluate(small, samples, input_spec, output_spec, baseline=model)
"""
