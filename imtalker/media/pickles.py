"""Looks at a torch.save file without unpickling it, and refuses one that would cost more than it says.

torch's own reader imports and runs nothing, but a few hundred bytes can still keep it busy for ever (keys of nested
tuples, whose hash doubles with every level), overflow the stack or claim gigabytes. So the steps of a pickle are first
followed with the sizes of its values in place of the values.
"""

import io
import mmap
import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from ..errors import InputError

MAX_BYTES, MAX_STEPS = 64 << 20, 1_000_000  # of one pickle; a checkpoint with its optimiser has thousands of steps
MAX_DEPTH, MAX_KEY, MAX_ARGUMENTS = 64, 1000, 1_000_000  # levels, and values when everything shared is counted again
MANY = 1 << 40
MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # after the protocol, in files from before PyTorch 1.6
LEGACY_PICKLES = 5  # magic number, version, system, content, keys of storages

# What torch may call for a file: cheap, whatever its arguments are.
CALLS = {
    "collections.OrderedDict": "dict",
    "collections.Counter": "dict",
    "torch._utils._rebuild_tensor": "value",
    "torch._utils._rebuild_tensor_v2": "value",
    "torch._utils._rebuild_parameter": "value",
    "torch._utils._rebuild_parameter_with_state": "value",
    "torch._utils._rebuild_sparse_tensor": "value",
    "torch.serialization._get_layout": "value",
    "torch.Size": "value",
    "torch.device": "value",
    "_codecs.encode": "value",
    "builtins.set": "value",
    "builtins.complex": "value",
}
SCALARS = {"NONE", "NEWFALSE", "NEWTRUE", "BINFLOAT", "SHORT_BINSTRING"}
NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1"}
EMPTY = {"EMPTY_LIST": "list", "EMPTY_DICT": "dict", "EMPTY_TUPLE": "tuple", "EMPTY_SET": "value"}


class _Refused(Exception):
    """Why a pickle is refused, as part of a sentence."""


@dataclass(slots=True)
class _Value:
    kind: str  # scalar, list, dict, tuple, global, storage, skipped, value
    size: int = 1  # values in it, shared ones counted again
    depth: int = 0
    content: object = None  # of a string, number or global: itself; of a tuple: its values
    keys: set | None = None  # strings, of a dict

    def take(self, *values: "_Value") -> None:
        for value in values:
            self.size = min(MANY, self.size + value.size)
            self.depth = max(self.depth, value.depth + 1)
        if self.depth > MAX_DEPTH:
            raise _Refused(f"is nested more than {MAX_DEPTH} levels deep")


def check_pickle(path: Path) -> list[str]:
    """Checks a torch.save file, zipped or older, and returns the classes in it that torch does not know.

    InputError: another kind of file, damaged, compressed, nested too deep, or it calls something that can be costly.
    """
    try:
        # open files, because torch takes no name that is not UTF-8
        with path.open("rb") as file:
            zipped = is_zip(path)
            called = _zipped(file, path.stat().st_size) if zipped else _legacy(file)
            file.seek(0)
            unknown = torch.serialization.get_unsafe_globals_in_checkpoint(file) if zipped else []
        if costly := sorted(called - CALLS.keys() - set(unknown)):
            raise _Refused(f"calls {', '.join(costly[:4])}, which no weights need")
        return unknown
    except _Refused as reason:
        raise InputError(f"{path} is refused because it {reason}: ask its author for a .safetensors file.") from reason
    except OSError:
        raise
    except Exception as problem:  # zipfile, pickletools and torch raise anything for a damaged file
        raise InputError(f"{path} is truncated or not a file that torch saved: download it again.") from problem


def is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _zipped(file: BinaryIO, size: int) -> set[str]:
    with zipfile.ZipFile(file) as archive:
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    names = [entry.filename for entry in entries]
    # torch never compresses, so the content cannot be larger than the file
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries) or (
        sum(entry.file_size for entry in entries) > size
    ):
        raise _Refused("unpacks to more than its own size")
    if len(set(names)) < len(names) or any(
        one.header_offset + one.compress_size > other.header_offset for one, other in zip(entries, entries[1:])
    ):
        raise _Refused("holds one part of it twice")
    if any(name.endswith("/constants.pkl") for name in names):
        raise _Refused("is a TorchScript program, not weights")
    if any(entry.file_size > MAX_BYTES for entry in entries if entry.filename.endswith(".pkl")):
        raise _Refused("holds too much besides tensors")
    # by torch's own reader, so that what is checked is what will be loaded
    file.seek(0)
    content = torch._C.PyTorchFileReader(file).get_record("data.pkl")
    return _calls(io.BytesIO(content), size)


def _legacy(file: BinaryIO) -> set[str]:
    start = file.read(16)
    if start[:1] != b"\x80":
        raise ValueError("no pickle")
    if start[2 : 2 + len(MAGIC)] != MAGIC:
        raise _Refused("is a pickle of something else than weights")
    with closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as content:
        return set().union(*(_calls(content, len(content)) for _ in range(LEGACY_PICKLES)))


def _calls(pickle: "BinaryIO | mmap.mmap", size: int) -> set[str]:
    """Follows one pickle up to its end and returns the names it calls; `size`: of the whole file, in bytes."""
    steps, start = _Steps(size), pickle.tell()
    for count, (operation, argument, position) in enumerate(pickletools.genops(pickle)):
        if count > MAX_STEPS or (position or 0) - start > MAX_BYTES:
            raise _Refused("holds too much besides tensors")
        steps.do(operation.name, argument)
    return steps.called


NOTHING = _Value("scalar")


class _Steps:
    """The stack of torch's reader (torch._weights_only_unpickler), with the sizes of values."""

    def __init__(self, file_size: int):
        self.file_size = file_size
        self.stack: list[_Value] = []
        self.below: list[list[_Value]] = []
        self.memo: dict[int, _Value] = {}
        self.called: set[str] = set()

    def do(self, name: str, argument: object) -> None:
        stack = self.stack
        if name in SCALARS:
            stack.append(NOTHING)
        elif name in NUMBERS or name == "BINUNICODE":
            stack.append(_Value("scalar", content=argument))
        elif name in EMPTY:
            stack.append(_Value(EMPTY[name], content=(), keys=set()))
        elif name == "GLOBAL":
            stack.append(_Value("global", content=_renamed(*argument.split(" ", 1))))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            self.below.append(stack)
            self.stack = []
        elif name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            parts = self._marked() if name == "TUPLE" else self._last(int(name[-1]))
            self.stack.append(_Value("tuple", content=parts))
            self.stack[-1].take(*parts)
        elif name in ("APPEND", "APPENDS"):
            parts = self._marked() if name == "APPENDS" else self._last(1)
            self.stack[-1].take(*parts)
        elif name in ("SETITEM", "SETITEMS"):
            self._set_items(self._marked() if name == "SETITEMS" else self._last(2))
        elif name in ("REDUCE", "NEWOBJ"):
            self._call(*self._last(2))
        elif name == "BUILD":
            self._build(*self._last(1))
        elif name == "BINPERSID":
            self._storage(*self._last(1))
        elif name == "STOP":
            stack.pop()
        elif name != "PROTO":
            raise _Refused(f"is not written as torch does ({name})")

    def _marked(self) -> list[_Value]:
        parts, self.stack = self.stack, self.below.pop()
        return parts

    def _last(self, count: int) -> list[_Value]:
        parts = self.stack[-count:]
        del self.stack[-count:]
        if len(parts) < count:
            raise IndexError
        return parts

    def _set_items(self, parts: list[_Value]) -> None:
        target = self.stack[-1]
        for key in parts[::2]:
            if key.size > MAX_KEY:
                raise _Refused("has a dictionary with keys of nested tuples")
        target.keys.update(key.content if isinstance(key.content, str) else "" for key in parts[::2])
        target.take(*parts)

    def _call(self, function: _Value, arguments: _Value) -> None:
        if function.kind != "global" or arguments.kind != "tuple":
            raise _Refused("calls something that is not a name")
        if arguments.size > MAX_ARGUMENTS:
            raise _Refused("holds a value that unpacks to more than its own size")
        name = function.content
        if name == "_codecs.encode" and [part.content for part in arguments.content][1:] != ["latin1"]:
            raise _Refused("encodes text in an unusual way")  # encoding again and again doubles it
        self.called.add(name)
        self.stack.append(_Value(CALLS.get(name, "skipped"), content=name, keys=set()))
        self.stack[-1].take(arguments)

    def _build(self, state: _Value) -> None:
        target = self.stack[-1]
        # anything else set on a dictionary could hide its methods
        if target.kind != "skipped" and not (target.kind == state.kind == "dict" and state.keys <= {"_metadata"}):
            raise _Refused("changes a value in an unusual way")

    def _storage(self, identity: _Value) -> None:
        parts = identity.content if identity.kind == "tuple" else ()
        count = parts[4].content if len(parts) > 4 else None
        if not isinstance(count, int) or not 0 <= count <= self.file_size:
            raise _Refused("claims a tensor larger than itself")
        self.stack.append(_Value("storage"))


def _renamed(module: str, name: str) -> str:
    """The full name in Python 3, as torch reads it."""
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[module, name]
    return f"{IMPORT_MAPPING.get(module, module)}.{name}"
