"""Files of tensors, read safely: no class or function that a file names is ever imported or called."""

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

Tree = dict  # names to tensors, plain values, or trees again


class Skipped:
    """Stands for a value of a class that torch does not know to be safe; whatever it was made with is dropped."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __setstate__(self, state):
        pass


def read_tensors(path: str | Path) -> tuple[Tree, dict[str, str]]:
    """A .safetensors file, or a pickle that torch.save wrote, as (content, metadata), tensors on the CPU.

    Raises InputError for a file that is missing, truncated, no such file at all, or a pickle that wants to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist.")
    if path.suffix.lower() in (".safetensors", ".sft"):
        return read_safetensors(path)
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not a dictionary of weights.")
    return content, {}


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a .safetensors file."""
    try:
        with safe_open(str(path), "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.") from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is truncated or not a .safetensors file ({error}); fetch it again.") from error


def is_plain(value: object) -> bool:
    """Whether it is an ordinary tensor of numbers: dense, floating, in memory."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
        and value.device.type == "cpu"
        and not value.is_nested
    )


def save_safetensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a .safetensors file whole or not at all."""
    try:
        with whole_file(path) as partial:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, str(partial), metadata)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be written: {error}") from error


def read_pickle(path: str | Path) -> object:
    """What torch.save wrote: tensors and plain containers; values of any other class become `Skipped`.

    Raises InputError where that is not possible without running something the file names.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist.")
    _refuse_bombs(path)
    unknown = _unknown_classes(path)
    if unknown:
        log.warning("%s: values of the classes %s are skipped.", path.name, ", ".join(sorted(unknown)))
    try:
        with torch.serialization.safe_globals([(Skipped, name) for name in unknown]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        names = f" (it names {', '.join(sorted(unknown))})" if unknown else ""
        raise InputError(
            f"{path} is refused: it is no file of weights, or holds more than tensors and plain values{names}; "
            f"ask its author for a .safetensors file."
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # torch raises anything for damaged files, KeyError and struct.error among them
        raise InputError(f"{path} is truncated or not a file that torch saved; fetch it again.") from error


def _refuse_bombs(path: Path) -> None:
    """Refuses what would fill the memory before torch has looked at it."""
    if not _is_zip(path):
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
            _refuse_bytearrays(path, content)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            # torch never compresses, so what is inside cannot be larger than the file
            if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries) or (
                sum(entry.file_size for entry in entries) > path.stat().st_size
            ):
                raise InputError(f"{path} is refused: it unpacks to more than it is, as no file that torch saved does.")
            for entry in entries:
                if entry.filename.endswith(".pkl"):
                    _refuse_bytearrays(path, archive.read(entry))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, struct.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is truncated or not a file that torch saved; fetch it again.") from error


def _refuse_bytearrays(path: Path, content: bytes | mmap.mmap) -> None:
    """The one class that torch takes for safe and that makes gigabytes of a few bytes: bytearray(10**11)."""
    if content.find(b"bytearray") >= 0:
        raise InputError(f"{path} is refused: it holds a bytearray, as no weights do; ask for a .safetensors file.")


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _unknown_classes(path: Path) -> list[str]:
    """Names in the pickle that torch does not know to be safe, found without running it."""
    if not _is_zip(path):
        return []
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:
        return []  # an older torch, or a damaged file: reading it says what is wrong
