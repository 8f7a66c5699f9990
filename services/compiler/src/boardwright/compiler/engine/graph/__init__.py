"""Reading and rewriting ONNX graphs: topology, preparation for quantization, sessions.

- ``editing``: attributes, constants, copies, further outputs, new nodes: what all rewriting needs.
- ``inspect``: inputs and outputs as shapes, free axes, names.
- ``topology``: producers, consumers, the trained layers, walks up and down; ``layers``: how each stores its
  weight and how many multiplications it takes.
- ``canonical``, ``widen``: one way of writing what exporters write in several; float32 throughout.
- ``prepare``: opset, constant folding and fusion, before anything is observed or quantized.
- ``constant_channels``: channels that never change, proven by intervals.
- ``session``: ONNX Runtime sessions with known threads, and which kernels they really run; ``narrowed``:
  float16 judged by float16's arithmetic.
"""
