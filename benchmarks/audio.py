"""Audio encoding in blocks: agreement with encoding the whole clip, and memory: python -m benchmarks.audio --minutes 10

Blocks and windows are compared with transformers' own forward pass over --compared minutes. Memory is measured in a
separate process that encodes --minutes from an audio file.
"""

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from imtalker.drawn import example as drawn
from imtalker.media.audio import SAMPLE_RATE, Audio, AudioFile, frame_count, normalise, to_mono_16k
from imtalker.models.audio_encoder import encoding_memory

from . import measure, models


def main(arguments: list[str] | None = None) -> dict:
    parser = measure.parser(__doc__)
    parser.add_argument("--minutes", nargs="*", type=float, default=[10], help="clip lengths to measure memory at (10)")
    parser.add_argument("--compared", type=float, default=2.5, help="minutes to compare (%(default)g)")
    parser.add_argument(
        "--windows", nargs="+", type=int, default=[2304, 1152], help="attention window lengths in frames (2304 1152)"
    )
    parser.add_argument("--sound", type=Path, help=argparse.SUPPRESS)
    options = measure.parse(parser, arguments)
    if options.sound:
        print(json.dumps(measure_file(options)))
        return {}
    table = compare(options)
    command = ["benchmarks.audio", *(["--small"] if options.small else [])]
    table += [{"what": "stream"} | row for row in measure.by_length(command, options, options.minutes)]
    return measure.report(options, "audio", table)


def compare(options) -> list[dict]:
    """Compares features computed in blocks, then in attention windows, with those of the whole clip."""
    generator = models.generator(options.generation, options.small).to(options.device)
    sound = drawn.speech(60 * options.compared)
    started = time.monotonic()
    expected = whole(generator, to_mono_16k(sound.waveform, sound.sample_rate).to(options.device)).cpu()
    table = [{"what": "whole", "minutes": options.compared, "took": time.monotonic() - started}]
    longest = generator.audio_encoder.window_frames()
    for window in [longest, *options.windows]:
        config = generator.config.audio
        room = encoding_memory(config, window, 4)
        if window > longest or generator.audio_encoder.window_frames(room) != window:
            continue
        started = time.monotonic()
        found = torch.cat(list(generator.listen(sound, memory=room).blocks()))
        table.append(
            {
                "what": "blocks" if window >= len(expected) else "windows",
                "minutes": options.compared,
                "window": min(window, len(expected)),
                "took": time.monotonic() - started,
                **differences(found, expected),
            }
        )
    return table


def differences(found: Tensor, expected: Tensor) -> dict[str, float]:
    """Differences of features whose deviation is about 1: largest, relative RMS, and largest step between frames."""
    error = found - expected
    return {
        "max_difference": error.abs().max().item(),
        "relative_rms": (error.square().mean() / expected.square().mean()).sqrt().item(),
        "largest_step": error.diff(dim=0).square().mean(dim=1).sqrt().max().item(),
    }


@torch.inference_mode()
def whole(generator, waveform: Tensor) -> Tensor:
    """Features (T,hidden_size) of the whole clip by transformers' own forward pass, as in the specification."""
    wav2vec2, frames = generator.audio_encoder.wav2vec2, frame_count(len(waveform))
    x = normalise(waveform)
    x = torch.cat([x, x[-1:].expand(frames * SAMPLE_RATE // 25 - len(x))])
    x = wav2vec2.feature_extractor(x[None])
    x = F.interpolate(x, size=frames, mode="linear", align_corners=True)
    return wav2vec2.encoder(wav2vec2.feature_projection(x.transpose(1, 2))[0]).last_hidden_state[0]


def measure_file(options) -> dict:
    """The row of one audio file, measured in this process."""
    generator = models.generator(options.generation, options.small).to(options.device)
    # warm up: imports transformers and runs every kernel once
    generator.encode_audio(torch.zeros(1, 640), SAMPLE_RATE)
    cpu = torch.device("cpu")
    row = {"models_bytes": measure.peak_bytes(cpu)}
    started = time.monotonic()
    sound: Audio | AudioFile = AudioFile(options.sound)
    features = generator.listen(sound)
    row["first_pass"] = time.monotonic() - started
    row["frames"] = sum(len(block) for block in features.blocks())
    row["took"] = time.monotonic() - started
    row["window"] = min(len(features), generator.audio_encoder.window_frames())
    return row | measure.peaks(options.device)


if __name__ == "__main__":
    measure.run(main)
