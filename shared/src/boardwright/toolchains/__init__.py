"""Toolchains: what turns a Variant's graph into the files one board's runtime loads.

The builder and the board agents share this package. It imports nothing heavy: ``onnx``, ``onnxruntime`` and
``openvino`` are imported inside the functions that use them, in a step's process.

    port.py              what a toolchain is: Toolchain, BuildRequest, BuiltModel, Availability
    errors.py            ToolchainError and its reasons
    graph.py             what is in an ONNX file: operators, opsets, precision; refuses hostile files
    precision.py         how a graph is quantized, read from its nodes
    pairs.py             which weights x86 without VNNI adds in 16 bits
    onnx_runtime.py      ``onnxruntime``: an ONNX file, fused ahead of time, for ONNX Runtime
    ort_format.py        ``ort-format``: ONNX Runtime's own flatbuffer, for Arm boards
    ort_flatbuffer.py    writes that flatbuffer in one canonical order: the same graph, the same bytes
    ort_session.py       opens what the two above wrote, and runs it
    openvino.py          ``openvino``: OpenVINO's IR, for x86-64
    openvino_graph.py    takes out the quantization that OpenVINO's fused kernels do without
    openvino_session.py  opens and runs it, telling which layers compute with integers
    runtimes.py          opens a model by its runtime's name: for whoever holds files and a HardwarePin
    agent_toolchain.py   what runs only where a vendor's SDK is
    tensorrt.py          ``tensorrt``: the exact ``trtexec`` line; waits for an agent on a Jetson
    litert.py            ``litert-vx``: the exact conversion and on-board lines; waits for an agent
    tidl.py              ``tidl``: the exact ``tidlrunner-cli`` line; waits for TI's tools
    catalogue.py         the toolchains by name
"""
