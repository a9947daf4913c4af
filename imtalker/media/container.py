"""Media files opened with FFmpeg: the streams that are meant, and their intact frames."""

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from ..errors import InputError
from .files import regular_file
from .formats import FORMATS, TIMED, kind_of
from .timing import mended

if TYPE_CHECKING:
    from av import AudioFrame, Packet, VideoFrame
    from av.codec.context import CodecContext
    from av.container import InputContainer
    from av.stream import Stream

OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
# 8K, the largest that any camera makes; decoders hold up to 17 frames.
MAX_PIXELS = 8192 * 4352
# Beyond this many pixels each thread's own frames would cost too much memory.
THREADED_PIXELS = 4096 * 2304
MAX_DEMUX_ERRORS = 10
MAX_HELD = 64  # frames that a decoder with threads may still hold at the end
MEASURED = 600  # packets that tell the frame rate

log = logging.getLogger("imtalker")


class Notes:
    """Warnings about one file, each said once, however often it is read."""

    def __init__(self, path: str | os.PathLike):
        self._path = path
        self._said: set[str] = set()

    def __call__(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            log.warning("%s: %s.", self._path, what)


def _silent(what: str) -> None:
    """For a look at the start of a file that is read as a whole later."""


def open_media(path: str | os.PathLike) -> "InputContainer":
    """Opens a media file with FFmpeg. InputError: no such file, not a regular file, not media."""
    import av

    path = regular_file(path)
    # FFmpeg cannot mistake an absolute path for a protocol such as concat:.
    name = os.path.abspath(path)
    try:
        try:
            # not `options`, for which older PyAV writes out of bounds where streams appear late, as in FLV and MPEG
            return av.open(name, container_options=OPTIONS)
        except UnicodeDecodeError:  # older PyAV decodes tags strictly
            return av.open(name, metadata_errors="replace", container_options=OPTIONS)
    except av.FFmpegError as problem:
        kind = kind_of(path)
        known = kind is not None and kind.better is not None
        what, better = (kind.name, kind.better) if known else (problem.strerror, "a media file such as MP4 or WAV")
        raise InputError(
            f"{path} cannot be read as audio or video ({what}): convert it to {better} first."
        ) from problem


def video_stream(container: "InputContainer") -> "Stream | None":
    """The video stream that a player shows, or None: no cover art, and of several the default one."""
    return next(iter(_by_preference(_films(container))), None)


def _films(container: "InputContainer") -> "list[Stream]":
    from av.stream import Disposition

    stills = Disposition.attached_pic | Disposition.timed_thumbnails
    return [stream for stream in container.streams.video if not stream.disposition & stills]


def sound_streams(container: "InputContainer") -> "list[Stream]":
    """The audio streams that can be decoded, the one that a player plays first."""
    return [stream for stream in _by_preference(container.streams.audio) if stream.codec_context is not None]


def _by_preference(streams: "list[Stream]") -> "list[Stream]":
    from av.stream import Disposition

    aside = Disposition.comment | Disposition.visual_impaired | Disposition.hearing_impaired | Disposition.dub
    return sorted(
        streams,
        key=lambda stream: (
            stream.codec_context is None,
            bool(stream.disposition & aside),
            not stream.disposition & Disposition.default,
        ),
    )


def decoder_of(stream: "Stream") -> "CodecContext":
    """The decoder for a video stream, with bounds on memory; libvpx where the stream has transparency."""
    from av import CodecContext

    decoder = stream.codec_context
    if stream.metadata.get("alpha_mode") == "1" and decoder.name in ("vp8", "vp9"):
        decoder = CodecContext.create("libvpx-vp9" if decoder.name == "vp9" else "libvpx", "r")
    decoder.options = {"max_pixels": str(MAX_PIXELS)}
    decoder.thread_type = (
        "AUTO" if stream.codec_context.width * stream.codec_context.height <= THREADED_PIXELS else "SLICE"
    )
    return decoder


def frame_times(path: str | os.PathLike) -> tuple[list[Fraction], bool]:
    """The times of the first MEASURED frames of a video in seconds, in any order, and whether these are all.

    Empty if the file states none.
    """
    with open_media(path) as container:
        stream = video_stream(container)
        packets = _packets(container, stream)
        times = []
        for packet in itertools.islice(packets, MEASURED):
            if packet.pts is not None and not getattr(packet, "is_discard", False):
                times.append(packet.pts * packet.time_base)
        return times, next(packets, None) is None


def decoded_frames(
    container: "InputContainer",
    stream: "Stream",
    decoder: "CodecContext | None" = None,
    note: Callable[[str], None] = _silent,
) -> "Iterator[AudioFrame | VideoFrame]":
    """Yields the intact frames of a stream, their time stamps mended; a note at the end counts the broken ones.

    decoder: another decoder than the stream's own. note: called with what was wrong, in words.
    """
    import av

    if stream.type == "audio":
        _name_channels(stream.codec_context)
    decode = (decoder or stream).decode
    broken = ends = 0
    packets = _packets(container, stream, note)
    while ends < MAX_HELD:  # a decoder that cannot be opened fails at the end, too, however often it is asked
        packet = next(packets, None)
        ends += packet is None
        try:
            frames = decode(packet)
        except EOFError:
            frames = []
        except av.FFmpegError:
            broken += 1
            continue
        for frame in frames:
            if frame.time_base is None:  # those that the decoder still held at the end
                frame.time_base = stream.time_base
            if frame.is_corrupt:
                broken += 1
            else:
                yield frame
        if packet is None:
            break
    if broken:
        note(f"skipped {broken} broken {stream.type} frames")


def _name_channels(decoder: "CodecContext") -> None:
    """Replaces an unusual order of channels by their mere count: PyAV frees its memory twice, with every frame."""
    layout = decoder.layout
    if "(" in layout.name:
        decoder.layout = f"{layout.nb_channels} channels"


def _packets(
    container: "InputContainer", stream: "Stream", note: Callable[[str], None] = _silent
) -> "Iterator[Packet]":
    """The packets of a stream, without the empty one at the end.

    All readers of a file watch the same streams, so that a jump of the time stamps is mended alike for all.
    """
    watched = [s for s in (*_films(container), *container.streams.audio) if s.codec_context is not None]
    packets = _demuxed(container, watched, note)
    for packet in mended(packets, note) if container.format.name in TIMED else packets:
        if packet.stream_index == stream.index and packet.size:
            yield packet


def _demuxed(container: "InputContainer", streams: "list[Stream]", note: Callable[[str], None]) -> "Iterator[Packet]":
    import av

    for _ in range(MAX_DEMUX_ERRORS):
        try:
            yield from container.demux(streams)
            return
        except EOFError:
            return
        except av.FFmpegError as problem:
            error = problem.strerror
    note(f"its end cannot be read ({error}); convert it first to hear and see all of it")
