"""Reading and rewriting ONNX graphs: topology, preparation for quantization, sessions.

- ``topology``: producers, consumers, weighted layers, walks up and down the graph.
- ``prepare``: opset, constant folding and fusion, before anything is observed or quantized.
- ``session``: ONNX Runtime sessions with known threads, and which kernels they really run.
"""
