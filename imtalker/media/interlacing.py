"""Interlaced video to whole frames, by FFmpeg's bwdif filter."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av import VideoFrame
    from av.filter import Graph


def deinterlaced(frames: "Iterable[VideoFrame]") -> "Iterator[VideoFrame]":
    """The same frames at the same times; those that are marked as interlaced are made whole."""
    graph = kind = None
    for frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        if (frame.width, frame.height, frame.format.name) != kind:
            if graph is not None:
                yield from _pulled(graph, None)
            kind = frame.width, frame.height, frame.format.name
            graph = _graph(frame)
        yield from _pulled(graph, frame)
    if graph is not None:
        yield from _pulled(graph, None)


def _graph(frame: "VideoFrame") -> "Graph":
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    # one frame for each, and only those that are marked
    bwdif = graph.add("bwdif", mode="send_frame", parity="auto", deint="interlaced")
    graph.link_nodes(source, bwdif, graph.add("buffersink")).configure()
    return graph


def _pulled(graph: "Graph", frame: "VideoFrame | None") -> "Iterator[VideoFrame]":
    from av import FFmpegError

    graph.push(frame)
    while True:
        try:
            yield graph.pull()
        except (EOFError, FFmpegError):  # nothing yet, or nothing more
            return
