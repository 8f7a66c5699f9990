"""ORT format in one canonical order.

ONNX Runtime keeps weights and value names in hash tables whose order changes from run to run, and writes
them in that order. The runtime looks them up by name, so their order means nothing. Here a file is read by
its schema, sorted wherever the order means nothing, and written again: the same graph, the same bytes.

Schema: onnxruntime/core/flatbuffers/schema/ort.fbs of ONNX Runtime (format version 6). A file with a field
beyond that schema is refused rather than losing it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from boardwright.toolchains.errors import ToolchainError

IDENTIFIER = b"ORTM"
_RAW_ALIGNMENT = 16
_SHARED_DEPTH = 64

# Kinds of a field: "i8", "i32", "u32", "i64", "f32" (scalars; with "=N" a default other than 0), "str",
# "[T]" a vector of them, "Name" a table, "[Name]" a vector of tables, "<EdgeEnd>" a vector of structs,
# "type:Union" and "union:Union" a union's tag and value, "-" a deprecated field, which is never written.
_TABLES: dict[str, str] = {
    "Shape": "dim:[Dimension]",
    "Dimension": "value:DimensionValue denotation:str",
    "DimensionValue": "dim_type:i8 dim_value:i64 dim_param:str",
    "TensorTypeAndShape": "elem_type:i32 shape:Shape",
    "MapType": "key_type:i32 value_type:TypeInfo",
    "SequenceType": "elem_type:TypeInfo",
    "NodeEdge": "node_index:u32 input_edges:<EdgeEnd> output_edges:<EdgeEnd>",
    "Node": (
        "name:str doc_string:str domain:str since_version:i32 index:u32 op_type:str type:i32 "
        "execution_provider_type:str inputs:[str] outputs:[str] attributes:[Attribute] "
        "input_arg_counts:[i32] implicit_inputs:[str]"
    ),
    "ValueInfo": "name:str doc_string:str type:TypeInfo",
    "TypeInfo": "denotation:str value_type:u8 value:union",
    "OperatorSetId": "domain:str version:i64",
    "Tensor": (
        "name:str doc_string:str dims:[i64] data_type:i32 raw_data:bytes string_data:[str] "
        "external_data_offset:i64=-1"
    ),
    "SparseTensor": "values:Tensor indices:Tensor dims:[i64]",
    "Attribute": (
        "name:str doc_string:str type:i32 f:f32 i:i64 s:str t:Tensor g:Graph floats:[f32] ints:[i64] "
        "strings:[str] tensors:[Tensor] graphs:[Graph]"
    ),
    "NodesToOptimizeIndices": (
        "node_indices:[u32] num_inputs:u32 num_outputs:u32 has_variadic_input:bool "
        "has_variadic_output:bool num_variadic_inputs:u32 num_variadic_outputs:u32"
    ),
    "RuntimeOptimizationRecord": (
        "action_id:str nodes_to_optimize_indices:NodesToOptimizeIndices produced_nodes:- "
        "produced_op_ids:[str]"
    ),
    "RuntimeOptimizationRecordContainerEntry": (
        "optimizer_name:str runtime_optimization_records:[RuntimeOptimizationRecord]"
    ),
    "RuntimeOptimizations": "records:[RuntimeOptimizationRecordContainerEntry]",
    "Graph": (
        "initializers:[Tensor] node_args:[ValueInfo] nodes:[Node] max_node_index:u32 "
        "node_edges:[NodeEdge] inputs:[str] outputs:[str] sparse_initializers:[SparseTensor] "
        "runtime_optimizations:RuntimeOptimizations"
    ),
    "StringStringEntry": "key:str value:str",
    "Model": (
        "ir_version:i64 opset_import:[OperatorSetId] producer_name:str producer_version:str domain:str "
        "model_version:i64 doc_string:str graph:Graph graph_doc_string:str "
        "metadata_props:[StringStringEntry]"
    ),
    "ArgTypeAndIndex": "arg_type:i8 index:u32",
    "KernelTypeStrArgsEntry": "kernel_type_str:str args:[ArgTypeAndIndex]",
    "OpIdKernelTypeStrArgsEntry": "op_id:str kernel_type_str_args:[KernelTypeStrArgsEntry]",
    "KernelTypeStrResolver": "op_kernel_type_str_args:[OpIdKernelTypeStrArgsEntry]",
    "InferenceSession": (
        "ort_version:str model:Model session_state:- kernel_type_str_resolver:KernelTypeStrResolver"
    ),
}
_UNION = {1: "TensorTypeAndShape", 2: "SequenceType", 3: "MapType"}

# Vectors whose order means nothing, and the field each is sorted by. Nodes, edges, inputs, dims and the
# like keep theirs.
_UNORDERED = {
    ("Graph", "initializers"): "name",
    ("Graph", "node_args"): "name",
    ("Node", "attributes"): "name",
    ("Model", "opset_import"): "domain",
    ("Model", "metadata_props"): "key",
    ("KernelTypeStrResolver", "op_kernel_type_str_args"): "op_id",
    ("OpIdKernelTypeStrArgsEntry", "kernel_type_str_args"): "kernel_type_str",
    ("RuntimeOptimizations", "records"): "optimizer_name",
}
_SCALARS = {"i8": 1, "u8": 1, "bool": 1, "i32": 4, "u32": 4, "i64": 8, "f32": 4}
_EDGE_END_BYTES = 12


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    kind: str
    default: int


def _fields(table: str) -> list[_Field]:
    found = []
    for part in _TABLES[table].split():
        name, kind = part.split(":", 1)
        kind, _, default = kind.partition("=")
        found.append(_Field(name, kind, int(default or 0)))
    return found


_SCHEMA = {table: _fields(table) for table in _TABLES}


def canonical(content: bytes) -> bytes:
    """Return the ORT-format model ``content`` with everything unordered in sorted order.

    Raises:
        ToolchainError: BUILD_FAILED, when the file is none, or of a newer schema.
    """
    return _Writer(len(content)).finish(_read_root(content))


def operators(content: bytes) -> Iterator[str]:
    """Yield the operator type of every node of the ORT-format model, subgraphs included."""
    graphs = [_read_root(content)["model"]["graph"]]
    while graphs:
        for node in graphs.pop().get("nodes", []):
            yield node["op_type"]
            for attribute in node.get("attributes", []):
                graphs += [attribute["g"]] if "g" in attribute else []
                graphs += attribute.get("graphs", [])


def _read_root(content: bytes) -> dict[str, Any]:
    import struct

    from flatbuffers.util import BufferHasIdentifier  # type: ignore[import-untyped]

    if len(content) < 8 or not BufferHasIdentifier(content, 0, IDENTIFIER):
        raise ToolchainError("BUILD_FAILED", "ONNX Runtime wrote a file that is not in ORT format.")
    return _Reader(content).table("InferenceSession", struct.unpack_from("<I", content)[0], 0)


class _Reader:
    """Reads tables into dicts; absent fields stay absent."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def table(self, name: str, position: int, depth: int) -> dict[str, Any]:
        import flatbuffers.table  # type: ignore[import-untyped]

        if depth > _SHARED_DEPTH:
            raise ToolchainError("BUILD_FAILED", "The ORT-format file nests too deeply to be one of a graph.")
        table = flatbuffers.table.Table(self._content, position)
        vtable = position - table.Get(_flags("i32"), position)
        slots = (table.Get(_flags("u16"), vtable) - 4) // 2
        schema = _SCHEMA[name]
        for slot in range(len(schema), slots):
            if table.Offset(4 + 2 * slot):
                raise ToolchainError(
                    "BUILD_FAILED",
                    f"The ORT-format file has a field of {name} that this version does not know. "
                    "Use an ONNX Runtime that the constraints file names.",
                )
        found: dict[str, Any] = {}
        for slot, field in enumerate(schema):
            offset = table.Offset(4 + 2 * slot)
            if offset and field.kind != "-":
                found[field.name] = self._value(table, field.kind, position + offset, found, depth + 1)
        return found

    def _value(self, table: Any, kind: str, at: int, siblings: dict[str, Any], depth: int) -> Any:
        if kind in _SCALARS:
            return table.Get(_flags(kind), at)
        if kind == "str":
            return table.String(at).decode()
        if kind in _SCHEMA or kind == "union":
            name = _UNION[siblings["value_type"]] if kind == "union" else kind
            return self.table(name, table.Indirect(at), depth)
        start = table.Vector(at - table.Pos)
        length = table.VectorLen(at - table.Pos)
        if kind == "bytes":
            return self._content[start : start + length]
        if kind == "<EdgeEnd>":
            return self._content[start : start + _EDGE_END_BYTES * length]
        element = kind[1:-1]
        size = _SCALARS.get(element, 4)
        return [self._value(table, element, start + size * i, {}, depth) for i in range(length)]


class _Writer:
    """Writes dicts as tables; equal strings are written once, as ONNX Runtime does."""

    def __init__(self, size_hint: int) -> None:
        import flatbuffers

        self._builder = flatbuffers.Builder(size_hint + size_hint // 8 + 1024)

    def finish(self, session: dict[str, Any]) -> bytes:
        self._builder.Finish(self._table("InferenceSession", session), IDENTIFIER)
        return bytes(self._builder.Output())

    def _table(self, name: str, value: dict[str, Any]) -> int:
        # Children are written before the table that refers to them.
        children = {
            field.name: self._child(name, field, value)
            for field in _SCHEMA[name]
            if field.name in value and field.kind not in _SCALARS
        }
        self._builder.StartObject(len(_SCHEMA[name]))
        for slot, field in enumerate(_SCHEMA[name]):
            if field.name not in value:
                continue
            if field.kind in _SCALARS:
                prepend = getattr(self._builder, f"Prepend{_METHODS[field.kind]}Slot")
                prepend(slot, value[field.name], field.default)
            else:
                self._builder.PrependUOffsetTRelativeSlot(slot, children[field.name], 0)
        return int(self._builder.EndObject())

    def _child(self, table: str, field: _Field, value: dict[str, Any]) -> int:
        content = value[field.name]
        if field.kind == "str":
            return int(self._builder.CreateSharedString(content))
        if field.kind == "bytes":
            return self._bytes(content, len(content), 1, _RAW_ALIGNMENT)
        if field.kind == "<EdgeEnd>":
            return self._bytes(content, len(content) // _EDGE_END_BYTES, _EDGE_END_BYTES, 4)
        if field.kind == "union":
            return self._table(_UNION[value["value_type"]], content)
        if field.kind in _SCHEMA:
            return self._table(field.kind, content)
        return self._vector(field.kind[1:-1], _ordered(table, field.name, content))

    def _vector(self, element: str, values: list[Any]) -> int:
        if element in _SCALARS:
            self._builder.StartVector(_SCALARS[element], len(values), _SCALARS[element])
            for item in reversed(values):
                getattr(self._builder, f"Prepend{_METHODS[element]}")(item)
            return int(self._builder.EndVector())
        if element == "str":
            offsets = [self._builder.CreateSharedString(item) for item in values]
        else:
            offsets = [self._table(element, item) for item in values]
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return int(self._builder.EndVector())

    def _bytes(self, content: bytes, length: int, size: int, alignment: int) -> int:
        builder = self._builder
        builder.StartVector(size, length, alignment)
        builder.head -= len(content)
        builder.Bytes[builder.head : builder.head + len(content)] = content
        return int(builder.EndVector())


_METHODS = {
    "i8": "Int8",
    "u8": "Uint8",
    "bool": "Bool",
    "i32": "Int32",
    "u32": "Uint32",
    "i64": "Int64",
    "f32": "Float32",
}


def _ordered(table: str, name: str, values: list[Any]) -> list[Any]:
    key = _UNORDERED.get((table, name))
    return sorted(values, key=lambda item: item.get(key, "")) if key else values


def _flags(kind: str) -> Any:
    from flatbuffers import number_types

    return getattr(number_types, f"{_METHODS.get(kind, 'Uint16')}Flags")
