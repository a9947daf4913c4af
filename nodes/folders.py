"""ComfyUI's folders: weights in models/, files in input/, output/ and temp/."""

import logging
import os
import re

import comfy.utils
import folder_paths

from ..imtalker import InputError
from ..imtalker.weights.checkpoints import AVATAR, find_weights
from ..imtalker.weights.download import Progress, download, fetch_detector
from ..imtalker.weights.reading import kind_of_file
from . import host
from .listing import Listing

log = logging.getLogger("imtalker")

_kinds: dict[tuple, str | None] = {}  # by fingerprint

FOLDER = "imtalker"
RIGS = "rigs"  # its folder of rigs
PUBLISHED = "published (downloaded on first use)"
BUILT_IN = [PUBLISHED, AVATAR.name]  # choices of a loader besides the artist's own files
MEDIA = Listing((".pt", ".pth", ".safetensors", ".npy"))  # in input/ and output/

# Weights


def _register() -> None:
    """Adds models/imtalker to ComfyUI's folders and limits its listing to weight files."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER), is_default=True)
    folders, _ = folder_paths.folder_names_and_paths[FOLDER]  # extra_model_paths.yaml may have added some
    folder_paths.folder_names_and_paths[FOLDER] = (folders, folder_paths.supported_pt_extensions)


_register()


def model_folders() -> list[str]:
    """models/imtalker first, then the folders from extra_model_paths.yaml."""
    return folder_paths.get_folder_paths(FOLDER)


def detector() -> dict[str, object]:
    """The arguments with which `find_crop` and its like find a face: where the detector is, and how it gets there.

    It is looked for in models/imtalker, and in models/detection of newer ComfyUI; a missing one is downloaded.
    """
    detection, *_ = folder_paths.folder_names_and_paths.get("detection", ([],))
    return {"model_dirs": [*model_folders(), *detection], "fetch": lambda: fetch_detector(model_folders()[0], _shown())}


def _shown() -> Progress:
    """Shows a download in the node's progress bar; each call is a chance to interrupt."""
    bar = comfy.utils.ProgressBar(1)

    def show(name: str, done: int, total: int | None) -> None:
        host.check_interrupted()
        bar.update_absolute(done, max(1, total or done))

    return show


def model_files(kind: str | None = None) -> list[str]:
    """Weight files in models/imtalker, without wav2vec2 and rigs. kind: without those known to be of another one."""
    names = [name for name in folder_paths.get_filename_list(FOLDER) if not _is_wav2vec2(name) and not _is_rig(name)]
    return [name for name in names if kind is None or _kind_of(name) in (kind, None)]


def _kind_of(name: str) -> str | None:
    """A key of KIND_NAMES, None if unknown. A file is looked into again only if it has changed."""
    state = fingerprint(folder_paths.get_full_path(FOLDER, name))
    if state not in _kinds:
        _kinds[state] = kind_of_file(state[0]) if state[0] else None
    return _kinds[state]


def rig_files() -> list[str]:
    """Rigs in models/imtalker/rigs, by their names in there."""
    return [os.path.relpath(name, RIGS) for name in folder_paths.get_filename_list(FOLDER) if _is_rig(name)]


def _is_rig(name: str) -> bool:
    return name.replace("\\", "/").startswith(f"{RIGS}/") and name.endswith(".safetensors")


def rig_path(name: str) -> str:
    """The file of a name from `rig_files`. InputError if it is gone."""
    path = folder_paths.get_full_path(FOLDER, os.path.join(RIGS, name))
    if path is None:
        raise InputError(f"{name!r} is not in models/{FOLDER}/{RIGS}: put it there and press R, or choose another rig.")
    return path


def check_rig(name: str | None, built_in: list[str]) -> bool | str:
    """For validate_inputs: True, or an error sentence; None (linked) is skipped."""
    try:
        return name is None or name in built_in or bool(rig_path(name))
    except InputError as error:
        return str(error)


def rig_fingerprint(name: str) -> tuple:
    """A value that changes when the file is replaced."""
    return fingerprint(folder_paths.get_full_path(FOLDER, os.path.join(RIGS, str(name))))


def rigs_folder() -> str:
    """Where rigs are saved."""
    return os.path.join(model_folders()[0], RIGS)


def new_rig(prefix: str) -> str:
    """A new numbered file in models/imtalker/rigs. InputError and OSError as for `new_output`."""
    return _new_file(rigs_folder(), prefix, ".safetensors")[0]


def wav2vec2_files() -> list[str]:
    """wav2vec2 in models/imtalker: folders in Hugging Face layout and single files, recognised by name."""
    names = filter(_is_wav2vec2, folder_paths.get_filename_list(FOLDER))
    return sorted({os.path.dirname(name) or name for name in names})


def _is_wav2vec2(name: str) -> bool:
    return bool(re.search(r"wav2vec2?[^/\\]*[/\\]|^wav2vec|\.wav2vec2?\.\w+$", name, re.IGNORECASE))


def check_choice(choice: str) -> bool | str:
    """For validate_inputs of a loader: True, or an error sentence."""
    return True if choice in (*BUILT_IN, *model_files()) else _missing(choice)


def _missing(name: str) -> str:
    return f"{name!r} is not in models/{FOLDER}: put it there and press R, or choose another file."


def wav2vec2_path(choice: str) -> str | None:
    """The chosen file or folder; for "auto" the first one found, or None."""
    name = next(iter(wav2vec2_files()), None) if choice == "auto" else choice
    if name is None:
        return None
    for folder in model_folders():
        path = _inside(folder, name)
        if os.path.exists(path):
            return path
    raise InputError(_missing(name))


def local_path(choice: str, published: str) -> str | None:
    """The file behind a loader's choice, None if it does not exist (yet); `published`: the file name for PUBLISHED."""
    if choice == AVATAR.name:
        return str(find_weights(AVATAR, os.path.splitext(published)[0]))
    return folder_paths.get_full_path(FOLDER, published if choice == PUBLISHED else choice)


def weights_path(choice: str, published: str) -> str:
    """Like `local_path`, but downloads a missing published file. InputError if a chosen file is gone."""
    path = local_path(choice, published)
    if path:
        return path
    if choice != PUBLISHED:
        raise InputError(_missing(choice))
    folder = model_folders()[0]
    os.makedirs(folder, exist_ok=True)
    log.info("Downloading %s to %s", published, folder)
    return str(download(folder, _shown(), [published])[0])


def fingerprint(path: str | None) -> tuple:
    """A value that changes when the file is replaced."""
    if path is None or not os.path.exists(path):
        return (path,)
    state = os.stat(path)
    return path, state.st_mtime, state.st_size


# Input and output files


def media_files(suffixes: tuple[str, ...], outputs: bool = False) -> list[str]:
    """Names for a combo: files with these suffixes in input/, and with `outputs` in output/, marked " [output]"."""
    found = MEDIA.files(folder_paths.get_input_directory(), suffixes)
    if outputs:
        found += [f"{name} [output]" for name in MEDIA.files(folder_paths.get_output_directory(), suffixes)]
    return found


def media_path(name: str) -> str:
    """The path of a name from `media_files`; InputError if it is gone or outside these folders."""
    if not isinstance(name, str):
        raise InputError(f"{name!r:.80} is not the name of a file: choose one.")
    name, folder = folder_paths.annotated_filepath(name)
    path = _inside(folder or folder_paths.get_input_directory(), name)
    if not os.path.isfile(path):
        raise InputError(f"There is no file {name[:200]!r} in {os.path.basename(folder or 'input')}: choose another.")
    return path


def check_media(*names: str | None) -> bool | str:
    """For validate_inputs: True, or an error sentence; None (linked) is skipped."""
    try:
        for name in filter(None, names):
            media_path(name)
    except InputError as error:
        return str(error)
    return True


def media_fingerprint(*names: str | None) -> list[tuple]:
    """A value that changes when one of the files is replaced."""
    return [fingerprint(media_path(name)) if check_media(name) is True else (name,) for name in filter(None, names)]


def new_output(prefix: str, suffix: str) -> tuple[str, str, str]:
    """A new numbered file in output/: (path, name, subfolder).

    InputError: the prefix leads out of it, or cannot be a name. OSError: the folder cannot be made.
    """
    return _new_file(folder_paths.get_output_directory(), prefix, suffix)


def _new_file(root: str, prefix: str, suffix: str) -> tuple[str, str, str]:
    parts = os.path.normpath(prefix).split(os.sep)
    if any(part.startswith(".") and part != ".." for part in parts):  # lists of files leave them out
        raise InputError(f"{prefix[:200]!r} cannot start a name: set filename_prefix to one without a dot in front.")
    _inside(root, prefix, "set filename_prefix to a name in")
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, root)
    name = f"{name}_{counter:05}_{suffix}"
    return os.path.join(folder, name), name, subfolder


def _inside(folder: str, name: str, remedy: str = "choose a file in") -> str:
    """The path of `name` in the folder. InputError if it leads out of it, which ComfyUI 0.3.64 does not check."""
    folder = os.path.abspath(folder)
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise InputError(f"{name[:200]!r} cannot be the name of a file: change it.") from error
    if "\0" in name:
        raise InputError(f"{name[:200]!r} cannot be the name of a file: change it.")
    path = os.path.abspath(os.path.join(folder, name))
    # not realpath: links that people put into their folders should work
    if not path.startswith(folder + os.sep):
        raise InputError(f"{name!r} leads out of ComfyUI's folders: {remedy} {os.path.basename(folder)}.")
    return path
