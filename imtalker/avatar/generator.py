"""Trains the avatar's generator, from scratch and on a single CPU core if need be.

    python -m imtalker.avatar.generator --out DIR --minutes 45

The avatar's motion channels have names (drawn/head.py), and synthetic speech comes with its true motion, so neither a
renderer nor recordings are needed. First the audio encoder learns to hear: a linear read-out of its features predicts
mouth shape and sound of every frame. Then it is frozen, and the transformer learns by flow matching. The same command
resumes a stopped training. The result is DIR/generator.safetensors, in float16. With --start, training continues from
an avatar's generator, and only the transformer learns.
"""

import argparse
import logging
from pathlib import Path

import torch

from ..drawn.head import MOTION_SIZE
from ..errors import InputError
from ..models.config import AudioConfig, GeneratorConfig, to_dict
from ..models.generator import Generator
from ..train.initialise import new_generator
from ..train.loop import Settings, Training
from ..weights.checkpoints import load_generator, save_weights
from .generator_tasks import FlowTask, HearingTask, standardise_controls
from .readout import fit_readout
from .speech_clips import flow_batches, hearing_batches, make_speech_clip

log = logging.getLogger("imtalker")

AUDIO = AudioConfig(112, 3, 4, 448, (56,) * 7, num_conv_pos_embeddings=32)
CONFIG = GeneratorConfig("v2", motion_size=MOTION_SIZE, width=128, depth=4, heads=4, audio=AUDIO)
GATE = 0.8  # correlation of mouth_open with the truth, on held-out voices, that flow matching needs
READOUT = 90  # batches that the last layer is fitted to, at the end
SCHEDULE = {"warmup": 100, "end": 0.02, "clip": 1.0, "ema": 0.998}


def train(
    out: Path,
    minutes: float,
    hearing_minutes: float | None = None,
    config: GeneratorConfig = CONFIG,
    seed: int = 0,
    gate: float = GATE,
    start: Path | None = None,
) -> Path | None:
    """Runs both stages and returns the file of weights, or None if training was stopped; resumes what `out` holds.

    hearing_minutes: the first stage's part of the minutes; None for half of them. start: an avatar's generator file,
    which hears already, to continue from. Raises InputError if the audio encoder does not pass the gate.
    """
    facts = {"config": to_dict(config), "seed": seed, "start": str(start)}
    if start is not None:
        generator = unfolded(load_generator(start)).requires_grad_(True)
        if generator.config != config:
            raise InputError(
                f"{start} is not of the avatar's size ({generator.config}): start from an avatar's "
                f"generator.safetensors."
            )
        return _train_flow(generator, out, minutes, facts)
    # evaluation mode: a model this small, on speech that never repeats, needs no dropout
    generator = new_generator(config, seed).eval()
    hearing_minutes = minutes / 2 if hearing_minutes is None else hearing_minutes
    hearing = _train_hearing(generator, out / "hearing.ckpt", hearing_minutes, facts, gate)
    if hearing is None:
        return None
    with hearing.averaged():
        standardise_controls(generator, [make_speech_clip(2 * 10**6 + number) for number in range(24)], seed)
        return _train_flow(generator, out, minutes - hearing_minutes, facts)


def unfolded(generator: Generator) -> Generator:
    """The generator in evaluation mode, computing with its parameters: what `load_generator` folds would not learn."""
    return generator.train().eval()


def _train_hearing(generator: Generator, file: Path, minutes: float, facts: dict, gate: float) -> Training | None:
    """Trains the audio encoder; None if it was stopped."""
    held_out = [make_speech_clip(number, held_out=True) for number in range(12)]
    hearing, logged = HearingTask(generator), 0

    def watch(step: int, means: dict[str, float]) -> None:
        nonlocal logged
        if step // 100 != logged:
            logged = step // 100
            log.info("step %d  mouth_open on held-out voices: correlation %.3f", step, hearing.correlation(held_out))

    settings = Settings(minutes=minutes, averaged=("audio_encoder", "readout"), seed=facts["seed"], **SCHEDULE)
    training = Training(hearing, hearing_batches, file, settings, facts=facts, watch=watch)
    if not training.run().finished:
        return None
    with training.averaged():
        reached = hearing.correlation(held_out)
    log.info("The audio encoder reads mouth_open on held-out voices with a correlation of %.3f.", reached)
    if not reached >= gate:
        raise InputError(
            f"The audio encoder reaches a correlation of {reached:.2f} and needs {gate}: run again with more minutes."
        )
    return training


def _train_flow(generator: Generator, out: Path, minutes: float, facts: dict) -> Path | None:
    """Trains the transformer and returns the generator's file; None if it was stopped."""
    generator.audio_encoder.requires_grad_(False)
    flow = FlowTask(generator)
    settings = Settings(minutes=minutes, averaged=tuple(flow.parts), seed=facts["seed"], **SCHEDULE)
    training = Training(flow, flow_batches(generator), out / "flow.ckpt", settings, facts=facts)
    if not training.run().finished:
        return None
    path = out / "generator.safetensors"
    with training.averaged():
        fit_readout(flow, flow_batches(generator)(0, 0, 1), READOUT)
        save_weights(generator, path, torch.float16)
    return path


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m imtalker.avatar.generator", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoints and the result")
    parser.add_argument("--minutes", type=float, default=45, help="training time of both stages (%(default)s)")
    parser.add_argument("--hearing-minutes", type=float, help="part of it for the audio encoder (half)")
    parser.add_argument("--start", type=Path, metavar="FILE", help="continue from an avatar's generator.safetensors")
    parser.add_argument("--seed", type=int, default=0, help="of weights and data (%(default)s)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if not 0 < (options.hearing_minutes or options.minutes / 2) < options.minutes:
        parser.error("each stage needs time: give --hearing-minutes above 0 and below --minutes")
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        path = train(options.out, options.minutes, options.hearing_minutes, seed=options.seed, start=options.start)
    except InputError as error:
        raise SystemExit(str(error)) from error
    if path is None:
        log.info("Stopped; run the same command to resume.")
    else:
        log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
