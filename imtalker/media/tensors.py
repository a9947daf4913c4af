"""Tensor files, read safely: no class or function named in a file is ever imported or called."""

import logging
import mmap
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import InputError
from .atomic import whole_file

log = logging.getLogger("imtalker")

Tree = dict[str, object]  # tensors, plain values and nested dictionaries by name


class Skipped:
    """Placeholder for a value of a class that torch does not consider safe; its arguments and state are dropped."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __setstate__(self, state):
        pass


def read_tensors(path: str | Path) -> tuple[Tree, dict[str, str]]:
    """Reads a .safetensors file or a torch.save pickle as (content, metadata), tensors on the CPU.

    InputError: no such file, truncated, another kind of file, a pickle that would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}: check the name and the folder.")
    if path.suffix.lower() in (".safetensors", ".sft"):
        return read_safetensors(path)
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not a dictionary of weights.")
    return content, {}


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a .safetensors file as (tensors, metadata). InputError: no such file, truncated, another kind of file."""
    try:
        with safe_open(str(path), "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}: check the name and the folder.") from error
    except (OSError, SafetensorError) as error:
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
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, str(temporary), metadata)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be written: {error}") from error


def read_pickle(path: str | Path) -> object:
    """Reads a torch.save file: tensors and plain containers; values of any other class become `Skipped`.

    InputError: no such file, truncated, or not readable without running code that the file names.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}: check the name and the folder.")
    _refuse_bombs(path)
    unknown = _unknown_classes(path)
    if unknown:
        log.warning("%s: skipped values of the classes %s.", path.name, ", ".join(sorted(unknown)))
    try:
        with torch.serialization.safe_globals([(Skipped, name) for name in unknown]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        names = f" (it names {', '.join(sorted(unknown))})" if unknown else ""
        raise InputError(
            f"{path} is refused: it is not a weights file, or holds more than tensors and plain values{names}; "
            f"ask its author for a .safetensors file."
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # torch raises anything for a damaged file, even KeyError and struct.error
        raise InputError(f"{path} is truncated or not a file that torch saved; download it again.") from error


def _refuse_bombs(path: Path) -> None:
    """Refuses files that would fill the memory before torch checks anything."""
    if not _is_zip(path):
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
            _refuse_bytearrays(path, content)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            # torch never compresses, so the content cannot be larger than the file
            if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries) or (
                sum(entry.file_size for entry in entries) > path.stat().st_size
            ):
                raise InputError(f"{path} is refused: it unpacks to more than its own size; download it again.")
            for entry in entries:
                if entry.filename.endswith(".pkl"):
                    _refuse_bytearrays(path, archive.read(entry))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, struct.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is truncated or not a file that torch saved; download it again.") from error


def _refuse_bytearrays(path: Path, content: bytes | mmap.mmap) -> None:
    """Refuses bytearray, which torch considers safe, although bytearray(10**11) makes gigabytes of a few bytes."""
    if content.find(b"bytearray") >= 0:
        raise InputError(
            f"{path} is refused: it holds a bytearray, which no weights need; ask its author for a .safetensors file."
        )


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _unknown_classes(path: Path) -> list[str]:
    """Class names in a pickle that torch does not consider safe, found without running the pickle."""
    if not _is_zip(path):
        return []
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:
        return []  # a damaged file: reading it raises the error
