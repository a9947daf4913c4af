"""Tensor files, read safely: no class or function named in a file is ever imported or called."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save, save_file
from torch import Tensor

from ..errors import InputError
from .atomic import whole_file
from .files import regular_file, unusable
from .formats import kind_of
from .pickles import check_pickle, is_zip

log = logging.getLogger("imtalker")

SUFFIXES = (".safetensors", ".sft")
MAX_HEADER = 100_000_000  # bytes, the limit of safetensors itself
Tree = dict[str, object]  # tensors, plain values and nested dictionaries by name


class Skipped:
    """Placeholder for a value of a class that torch does not consider safe; its arguments and state are dropped."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __setstate__(self, state):
        pass


def _is_utf8(path: Path) -> bool:
    """False for a name of other bytes, which safetensors and torch cannot open; its file is read into memory."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def read_tensors(path: str | Path) -> tuple[Tree, dict[str, str]]:
    """Reads a .safetensors file or a torch.save pickle as (content, metadata), tensors on the CPU.

    InputError: not an ordinary file, truncated, another kind of file, a pickle that would run code.
    """
    path = regular_file(path)
    if _is_safetensors(path):
        return read_safetensors(path)
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not a dictionary of weights.")
    return content, {}


def _is_safetensors(path: Path) -> bool:
    """By the content, because people rename files: a length in 8 bytes, then JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{" and not start.startswith(b"PK"):
        return True
    return path.suffix.lower() in SUFFIXES and start[:2] not in (b"PK", b"\x80\x02")


def read_names(path: str | Path) -> Tree | None:
    """Like the content of `read_tensors`, with empty tensors where reading them would take long; None if all would.

    InputError as in `read_tensors`.
    """
    path = regular_file(path)
    if _is_safetensors(path):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(min(length, MAX_HEADER))
        try:
            return {name: torch.empty(0) for name in json.loads(header) if name != "__metadata__"}
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"{path} is truncated or not a .safetensors file: choose another file.") from error
    if not is_zip(path):
        return None
    content = read_pickle(path)
    return content if isinstance(content, dict) else {}


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a .safetensors file as (tensors, metadata). InputError: no ordinary file, truncated, of another kind."""
    path = regular_file(path)
    _refuse_foreign(path)
    try:
        if not _is_utf8(path):
            content = path.read_bytes()
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            return load(content), header.get("__metadata__", {})
        with safe_open(str(path), "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as error:  # of the system, of safetensors, or torch's for a type of numbers that it lacks
        raise InputError(
            f"{path} is truncated or not a .safetensors file ({error}): choose another file, or download it again."
        ) from error


def is_plain(value: object) -> bool:
    """Whether `value` is an ordinary tensor: dense, floating point, on the CPU."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
        and value.device.type == "cpu"
        and not value.is_nested
    )


def save_safetensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a .safetensors file whole or not at all. InputError: it cannot be written."""
    try:
        with whole_file(path) as temporary:
            whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
            if _is_utf8(temporary):
                save_file(whole, str(temporary), metadata)
            else:
                temporary.write_bytes(save(whole, metadata))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be written: {error}") from error


def read_pickle(path: str | Path) -> object:
    """Reads a torch.save file: tensors and plain containers; values of any other class become `Skipped`.

    InputError: no such file, truncated, or not readable without running code that the file names or at a great cost.
    """
    path = regular_file(path)
    _refuse_foreign(path)
    try:
        unknown = check_pickle(path)
        if unknown:
            log.warning("%s: skipped values of the classes %s.", path.name, ", ".join(sorted(unknown)))
        with torch.serialization.safe_globals([(Skipped, name) for name in unknown]):
            # some versions of torch take the suffix for the kind
            if _is_utf8(path) and path.suffix.lower() not in SUFFIXES:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip(path))
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except OSError as error:
        raise unusable(path, "read", error) from error
    except Exception as error:  # torch raises anything for a damaged file, even KeyError and struct.error
        raise InputError(f"{path} is truncated or not a file that torch saved: download it again.") from error


def _refuse_foreign(path: Path) -> None:
    """Refuses other kinds of files by name."""
    with path.open("rb") as file:
        start = file.read(9)
    # a .safetensors file starts with a length, which may look like anything; torch's are zip archives
    if start[8:] != b"{" and start[:2] != b"PK" and (kind := kind_of(path)):
        raise InputError(f"{path} is {kind.name}: give a .safetensors file, or one that torch.save wrote.")
