"""Speech of any length to features: agreement with the whole clip, and memory: python -m benchmarks.audio --minutes 10

Blocks and windows are compared with transformers' own forward passes over --compared minutes; memory is that of a
process of its own that encodes --minutes from a sound file.
"""

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
    parser.add_argument("--minutes", nargs="*", type=float, default=[10])
    parser.add_argument("--compared", type=float, default=2.5, help="minutes of the clip that is also computed whole")
    parser.add_argument("--windows", nargs="+", type=int, default=[2304, 1152], help="frames that attend to each other")
    parser.add_argument("--sound", type=Path, help="used by the command itself: one length, in this process")
    options = measure.parse(parser, arguments)
    if options.sound:
        print(json.dumps(one(options)))
        return {}
    table = compare(options)
    command = ["benchmarks.audio", *(["--small"] if options.small else [])]
    table += [{"what": "stream"} | row for row in measure.by_length(command, options, options.minutes)]
    return measure.report(options, "audio", table)


def compare(options) -> list[dict]:
    """Features in blocks, then in windows, against those of the whole clip at once."""
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
    """Of features with a deviation of about 1: the largest, the root mean square relative to the whole's."""
    error = found - expected
    return {
        "max_difference": error.abs().max().item(),
        "relative_rms": (error.square().mean() / expected.square().mean()).sqrt().item(),
        "largest_step": error.diff(dim=0).square().mean(dim=1).sqrt().max().item(),
    }


@torch.inference_mode()
def whole(generator, waveform: Tensor) -> Tensor:
    """Features (T,hidden_size) as the specification has them, all at once, by transformers' own forward passes."""
    wav2vec2, frames = generator.audio_encoder.wav2vec2, frame_count(len(waveform))
    x = normalise(waveform)
    x = torch.cat([x, x[-1:].expand(frames * SAMPLE_RATE // 25 - len(x))])
    x = wav2vec2.feature_extractor(x[None])
    x = F.interpolate(x, size=frames, mode="linear", align_corners=True)
    return wav2vec2.encoder(wav2vec2.feature_projection(x.transpose(1, 2))[0]).last_hidden_state[0]


def one(options) -> dict:
    generator = models.generator(options.generation, options.small).to(options.device)
    # the import of transformers, and the first use of every kernel
    generator.encode_audio(torch.zeros(1, 640), SAMPLE_RATE)
    cpu = torch.device("cpu")
    row = {"models_bytes": measure.peak_bytes(cpu)}
    started = time.monotonic()
    sound: Audio | AudioFile = AudioFile(options.sound)
    heard = generator.listen(sound)
    row["first_pass"] = time.monotonic() - started
    row["frames"] = sum(len(block) for block in heard.blocks())
    row["took"] = time.monotonic() - started
    row["window"] = min(len(heard), generator.audio_encoder.window_frames())
    return row | measure.peaks(options.device)


if __name__ == "__main__":
    measure.run(main)
