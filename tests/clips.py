"""Clips to measure readers with: flashes with beeps at known times, in any container, and remuxed with faults."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import torch

from imtalker.media.audio import AudioFile
from imtalker.media.video import VideoReader

EVERY = Fraction(2, 5)  # seconds between two flashes
BEEP = Fraction(1, 20)  # seconds that a flash and a beep last, rounded up to frames

PIXELS = {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le", "apng": "rgb24", "gif": "rgb8"}


def beeps(seconds: float, rate: int, fps: Fraction, channels: int = 1) -> torch.Tensor:
    """A tone that sounds with every frame that is a flash (channels, samples)."""
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    flashes = torch.tensor([is_flash(index / fps) for index in range(int(seconds * fps) + 2)])
    on = flashes[(time * float(fps) + 1e-9).long()]
    return (0.5 * torch.sin(2 * torch.pi * 1000 * time) * on).float().expand(channels, -1).contiguous()


def is_flash(time: Fraction) -> bool:
    return time >= EVERY / 2 and (time + Fraction(1, 1000)) % EVERY < BEEP


def write_clip(
    path: Path,
    video: str | None = "libx264",
    audio: str | None = "aac",
    fps: float | Fraction = 25,
    rate: int = 48000,
    seconds: float = 2.4,
    video_late: Fraction = Fraction(0),
    audio_late: Fraction = Fraction(0),
    layout: str = "mono",
    options: dict | None = None,
    video_options: dict | None = None,
    size: tuple[int, int] = (64, 48),
    container_format: str | None = None,
) -> Path:
    """Writes flashes and beeps at every EVERY seconds; a track that starts `late` lacks what comes before."""
    fps, seconds = Fraction(fps).limit_denominator(1001), Fraction(seconds).limit_denominator(1000)
    with av.open(str(path), "w", format=container_format, options=options or {}) as container:
        packets = []
        if video:
            film = container.add_stream(video, rate=fps, options=video_options or {})
            film.width, film.height = size
            film.pix_fmt = PIXELS.get(video, "yuv420p")
            film.codec_context.gop_size = 10
        if audio:
            sound = container.add_stream(audio, rate=rate, layout=layout)
        if video:
            for index in range(int(seconds * fps)):
                time = index / fps
                if time < video_late:
                    continue
                shade = torch.full((size[1], size[0], 3), 255 if is_flash(time) else 16, dtype=torch.uint8)
                frame = av.VideoFrame.from_ndarray(shade.numpy(), "rgb24").reformat(format=film.pix_fmt)
                frame.pts, frame.time_base = index, 1 / fps
                packets += film.encode(frame)
            packets += film.encode(None)
        if audio:
            start = round(audio_late * rate)
            samples = beeps(float(seconds), rate, fps, len(av.AudioLayout(layout).channels))[:, start:].contiguous()
            frame = av.AudioFrame.from_ndarray(samples.numpy(), "fltp", layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            size_of = sound.codec_context.frame_size or 1024
            convert = av.AudioResampler(format=sound.codec_context.format, layout=layout, rate=rate, frame_size=size_of)
            for part in [*convert.resample(frame), *convert.resample(None)]:
                part.pts = None if part.pts is None else part.pts
                packets += sound.encode(part)
            packets += sound.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def remux(source: Path, target: Path, change: Callable, options: dict | None = None) -> Path:
    """Copies the packets of a clip; `change(kind, seconds, packet)` returns packets to write, often one or none.

    seconds: since the start of the clip.
    """
    with av.open(str(source)) as given, av.open(str(target), "w", options=options or {}) as made:
        start = Fraction(given.start_time or 0, 1_000_000)
        streams = {stream.index: made.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            if not packet.size:
                continue
            stamp = packet.dts if packet.pts is None else packet.pts
            for changed in change(packet.stream.type, stamp * packet.time_base - start, packet):
                changed.stream = streams[packet.stream_index]
                made.mux(changed)
    return target


def heard(path: Path) -> list[float]:
    """Times in seconds at which beeps start."""
    file = AudioFile(path)
    loud = torch.cat(list(file.blocks()), dim=-1).mean(0).abs() > 0.12
    times, quiet = [], file.sample_rate * 0.05
    last = -quiet
    for index in loud.nonzero().flatten().tolist():
        if index - last >= quiet:
            times.append(index / file.sample_rate)
        last = index
    return times


def seen(path: Path, fps: float | None = None) -> list[float]:
    """Times in seconds at which flashes start."""
    with VideoReader(path, fps) as reader:
        bright = [frame.float().mean().item() > 100 for frame in reader]
        return [i / float(reader.fps) for i, now in enumerate(bright) if now and (i == 0 or not bright[i - 1])]


def offsets(path: Path, fps: float | None = None) -> list[float]:
    """By how many seconds each beep is later than its flash; beeps and flashes without the other are left out."""
    flashes = seen(path, fps)
    pairs = [(beep, min(flashes, key=lambda flash: abs(flash - beep))) for beep in heard(path)] if flashes else []
    return [beep - flash for beep, flash in pairs if abs(beep - flash) < float(EVERY) / 2]
