"""Rendering a long video in segments, so that a stopped render resumes after its last whole one.

Beside OUT.mp4, the folder .OUT.mp4.segments holds silent segments of SEGMENT_FRAMES frames each, and a record of what
they were made from. At the end they are joined without encoding again, and the folder is removed.
"""

import contextlib
import hashlib
import heapq
import itertools
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..media.atomic import is_disk_full, whole_file
from ..media.files import LONG_NAME, sha256_of, unusable
from ..media.provenance import TAGS, find_signer
from ..media.video_writer import write_video
from ..models.backend import to_file
from ..pipeline import SEGMENT_FRAMES, Clip
from ..weights.checkpoints import find_weights
from ..weights.download import PUBLISHED as DOWNLOADS
from .jobs import Job, Models, find_device

log = logging.getLogger("imtalker")

STATE = "state.json"


def segments_folder(output: Path) -> Path:
    name = output.name
    if len(os.fsencode(name)) > LONG_NAME:
        name = hashlib.sha1(os.fsencode(name)).hexdigest()
    return output.with_name(f".{name}.segments")


def check_inputs(job: Job) -> None:
    """InputError if an input lies in the folder of segments, which is removed at the end."""
    folder = os.path.realpath(segments_folder(job.output))
    for path in job.inputs().values():
        if os.path.realpath(path).startswith(folder + os.sep):
            raise InputError(f"{path} is in a folder that this render removes: copy it elsewhere first.")


def fingerprint(job: Job, models: Models) -> dict:
    """Everything the frames depend on, as plain values: settings, hashes of the inputs, weights, versions."""
    import av

    from ..version import __version__

    settings = {name: value for name, value in asdict(job).items() if not isinstance(value, Path)}
    versions = {"imtalker": __version__, "torch": torch.__version__, "av": av.__version__}
    return {
        **settings,
        "inputs": {name: sha256_of(path) for name, path in job.inputs().items()},
        "weights": weights_state(models),
        "device": find_device(models.device).type,
        "dtype": models.dtype,
        "batch_size": models.batch_size,
        "versions": versions,
        "segment": SEGMENT_FRAMES,
    }


def weights_state(models: Models) -> dict:
    """Size and modification time of each weight file, by name: changes when one of them is replaced."""
    if models.untrained:
        return {"untrained": models.untrained}
    names = [find_weights(models.folder, "renderer").name, *(file.name for file in DOWNLOADS)]
    names += [f"generator{suffix}" for suffix in (".safetensors", ".ckpt")]
    files = {name: models.folder / name for name in dict.fromkeys(names)}
    states = {name: path.stat() for name, path in files.items() if os.path.isfile(path)}
    return {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()}


def save(
    output: Path, make: Callable[[int], Clip], made_from: dict, metadata: dict[str, str] | None = None
) -> tuple[int, Fraction]:
    """Writes the clip to `output` like `Clip.save`, and keeps whole segments in case it is stopped.

    make(first): returns the clip from frame `first` on, a multiple of SEGMENT_FRAMES.
    made_from: the `fingerprint`; segments made from anything else are dropped, with a warning.
    Returns (frames, frames per second). Raises InputError if the disk is full.
    """
    output = Path(output)
    folder = segments_folder(output)
    signer = find_signer()
    try:
        done = _prepare(folder, made_from)
        if done:
            log.warning("Resuming %s after frame %d.", output, done * SEGMENT_FRAMES)
        clip = make(done * SEGMENT_FRAMES)
        blocks = iter(clip.rendered)
        count = done * SEGMENT_FRAMES
        for number in itertools.count(done):
            first = next(blocks, None)
            if first is None:
                break
            count += write_video(_segment(folder, number), to_file(_until_full(first, blocks)), clip.fps)
        _join(output, folder, count, clip, TAGS | (metadata or {}))
        if signer:
            signer.sign(output)
    except OSError as problem:
        if is_disk_full(problem):
            raise InputError(
                f"The disk is full, {output} was not written: free some space and rerun to resume."
            ) from problem
        if problem.errno:
            raise unusable(problem.filename or output, "written", problem) from problem
        raise
    discard(output)
    return count, clip.fps


def discard(output: Path) -> None:
    """Removes the segments of a render that will not be resumed."""
    shutil.rmtree(segments_folder(output), ignore_errors=True)


def _prepare(folder: Path, made_from: dict) -> int:
    """Prepares the folder and returns how many whole segments it starts with."""
    state = json.dumps(made_from, sort_keys=True, indent=1)
    file = folder / STATE
    if os.path.isdir(folder):
        # any other state is from another run, or half written
        if os.path.isfile(file) and file.read_text("utf-8", errors="replace") == state:
            return next(number for number in itertools.count() if not _is_whole(_segment(folder, number)))
        log.warning("%s was made with other inputs or settings: starting over.", folder)
        shutil.rmtree(folder)
    folder.mkdir()
    with whole_file(file) as temporary:
        temporary.write_text(state, "utf-8")
    return 0


def _segment(folder: Path, number: int) -> Path:
    return folder / f"{number:06}.mp4"


def _is_whole(path: Path) -> bool:
    """Whether a segment can be kept. The last one of a video is usually shorter, and is rendered again."""
    import av

    try:
        with av.open(str(path)) as container:
            return container.streams.video[0].frames == SEGMENT_FRAMES
    except (av.FFmpegError, IndexError):
        return False


def _until_full(first: Tensor, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
    """Blocks up to the end of a segment; `talk` and `reenact` never let one cross it."""
    count = len(first)
    yield first
    while count < SEGMENT_FRAMES and (block := next(blocks, None)) is not None:
        count += len(block)
        yield block


def _join(output: Path, folder: Path, count: int, clip: Clip, metadata: dict[str, str]) -> None:
    """Joins the segments into one file, copying frames packet by packet, and adds the audio."""
    import av

    files = [_segment(folder, number) for number in range(math.ceil(count / SEGMENT_FRAMES))]
    if not files:
        raise InputError(f"There are no frames to write to {output}: check the length of the motion.")
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(whole_file(output))
        ticks = str(clip.fps.numerator * math.ceil(10000 / clip.fps.numerator))
        options = {"movflags": "+faststart", "movie_timescale": ticks}
        container = av.open(str(temporary.absolute()), "w", options=options)
        stack.callback(_close, container)
        container.metadata.update(metadata)
        with av.open(str(files[0])) as first:
            video = container.add_stream_from_template(first.streams.video[0])
            video.time_base = first.streams.video[0].time_base
        tracks = [_video_packets(files, clip.fps, video)]
        if clip.audio is not None:
            encoded = stack.enter_context(av.open(str(_encode_audio(folder, count, clip))))
            track = container.add_stream_from_template(encoded.streams.audio[0])
            tracks.append(_packets(encoded, "audio", track))
        for packet in heapq.merge(*tracks, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
        container.close()


def _close(container) -> None:
    """Closes quietly, so that an earlier error is the one reported; closing twice does nothing."""
    import av

    with contextlib.suppress(av.FFmpegError, OSError):
        container.close()


def _encode_audio(folder: Path, count: int, clip: Clip) -> Path:
    """A file with exactly the video's audio, written together with black frames that are not used."""
    black = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    path = folder / "sound.mp4"
    write_video(path, itertools.repeat(black, count), clip.fps, clip.audio, preset="ultrafast")
    return path


def _video_packets(files: Iterable[Path], fps: Fraction, stream) -> Iterator:
    """The packets of all segments in order, at their times in the whole video."""
    import av

    index, ahead = 0, None
    for number, file in enumerate(files):
        with av.open(str(file)) as container:
            for packet in _packets(container, "video", stream):
                tick = packet.time_base
                # evenly spaced: a segment too short to reorder frames would be decoded later than the others
                ahead = packet.dts if ahead is None else ahead
                packet.dts = ahead + round(index / fps / tick)
                packet.pts += round(number * SEGMENT_FRAMES / fps / tick)
                index += 1
                yield packet


def _packets(container, kind: str, stream) -> Iterator:
    """The packets of one kind, moved to another file's stream, without the empty one at the end."""
    for packet in container.demux(**{kind: 0}):
        if packet.dts is not None:
            packet.stream = stream
            yield packet
