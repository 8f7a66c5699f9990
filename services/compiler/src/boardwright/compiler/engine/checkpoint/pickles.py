"""Read what a pickle asks for without running any of it.

A pickle is a program. Two passes look at it, and neither calls anything that the file names:

1. ``pickletools.genops`` walks the opcodes: truncated streams, byte strings longer than the file and memo
   indices beyond what the stream could fill (which make the C unpickler allocate gigabytes) are refused.
2. An unpickler whose ``find_class`` gives back inert stand-ins replays the program. It resolves names however
   they are spelled (GLOBAL, STACK_GLOBAL, through the memo), which a textual scan does not.

The outcome is the set of globals the file needs and every tensor it claims.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from boardwright.compiler.engine.errors import CheckpointUnreadable

_MEMO_OPCODES = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


@dataclass(frozen=True, slots=True)
class StorageClaim:
    """A tensor's bytes as the pickle refers to them: a key in the archive and a length in elements."""

    key: str
    dtype: str
    elements: int


@dataclass(frozen=True, slots=True)
class TensorClaim:
    """A tensor as the pickle describes it; nothing is allocated for it."""

    storage: StorageClaim
    offset: int
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many elements the shape asks for."""
        count = 1
        for length in self.shape:
            count *= length
        return count


class Inert:
    """Stands for whatever a pickle builds from a global. Making, calling or filling it does nothing.

    ``origin`` is the global's qualified name; every global gets a subclass of its own.
    """

    origin = ""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.state: Any = None

    def __call__(self, *_: Any, **__: Any) -> Inert:
        return type(self)()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        return None

    def append(self, value: Any) -> None:
        """Take the place of list.append."""

    def extend(self, values: Any) -> None:
        """Take the place of list.extend."""

    def add(self, value: Any) -> None:
        """Take the place of set.add."""


def _stand_in(qualified_name: str) -> type[Inert]:
    return type("StandIn", (Inert,), {"origin": qualified_name})


@dataclass(slots=True)
class PickleReading:
    """What a pickle asks for: its root with stand-ins, the globals named, the tensors claimed."""

    root: Any = None
    globals_named: set[str] = field(default_factory=set)
    tensors: list[TensorClaim] = field(default_factory=list)


def read_inertly(data: bytes, name: str) -> PickleReading:
    """Replay one pickle with stand-ins for every global.

    Raises:
        CheckpointUnreadable: the stream is truncated, malformed, or claims more than it holds.
    """
    stream = io.BytesIO(data)
    reading = PickleReading()
    read_one(stream, name, reading)
    return reading


def read_one(stream: io.BytesIO, name: str, reading: PickleReading) -> None:
    """Replay the next pickle of ``stream`` into ``reading`` and leave the stream behind it.

    Raises:
        CheckpointUnreadable: see ``read_inertly``.
    """
    start = stream.tell()
    check_opcodes(stream, name)
    end = stream.tell()
    stream.seek(start)
    unpickler = _InertUnpickler(io.BytesIO(stream.read(end - start)), reading)
    try:
        reading.root = unpickler.load()
    except Exception as error:  # stand-ins make any malformed program fail in its own way
        raise _malformed(name, error) from error


def check_opcodes(stream: io.BytesIO, name: str) -> None:
    """Walk the opcodes of one pickle without building anything.

    Raises:
        CheckpointUnreadable: the stream is malformed or claims more than it holds.
    """
    count = 0
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            count += 1
            if opcode.name in _MEMO_OPCODES and int(argument or 0) > count:
                raise CheckpointUnreadable(
                    "CHECKPOINT_UNREADABLE",
                    f"{name} stores object {argument:,} after {count:,} operations; no pickle writer does "
                    "that, and reading it would exhaust memory. Save the checkpoint again.",
                )
    except (ValueError, EOFError, UnicodeDecodeError, OverflowError) as error:
        raise _malformed(name, error) from error


def _malformed(name: str, error: Exception) -> CheckpointUnreadable:
    return CheckpointUnreadable(
        "CHECKPOINT_UNREADABLE",
        f"{name} is truncated or not a pickle that PyTorch wrote ({type(error).__name__}: {error}). "
        "Save the checkpoint again.",
    )


class _InertUnpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, reading: PickleReading) -> None:
        super().__init__(stream, encoding="utf-8", errors="replace")
        self._reading = reading

    def find_class(self, module: str, name: str) -> Any:
        qualified = f"{module.replace('__builtin__', 'builtins')}.{name}"
        self._reading.globals_named.add(qualified)
        if qualified == "collections.OrderedDict":
            return _ordered_dict
        if qualified in _TENSOR_BUILDERS:
            return self._rebuild_tensor
        if qualified == "torch._utils._rebuild_parameter":
            return _first_argument
        return _stand_in(qualified)

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage":
            origin = getattr(pid[1], "origin", "")
            return StorageClaim(str(pid[2]), str(origin), _non_negative(pid[4]))
        return Inert()

    def _rebuild_tensor(self, storage: Any, offset: Any = 0, shape: Any = (), *_: Any) -> Any:
        if not isinstance(storage, StorageClaim):
            return Inert()
        claim = TensorClaim(storage, _non_negative(offset), tuple(_non_negative(length) for length in shape))
        self._reading.tensors.append(claim)
        return claim


_TENSOR_BUILDERS = frozenset(
    {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"}
)


def _non_negative(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a size")
    return value


def _ordered_dict(*items: Any) -> OrderedDict[Any, Any]:
    if items and isinstance(items[0], list | tuple | Mapping):
        return OrderedDict(items[0])
    return OrderedDict()


def _first_argument(value: Any = None, *_: Any) -> Any:
    return value
