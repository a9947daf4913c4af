"""A rig from the models alone: the generator says what speech moves, and which way a control turns the head and eyes.

No clip, no landmarks and no further file. Mouth: several sounds are sampled, each with the same noises, so that what
differs between them comes from speech; the directions in which that is large beside all other movement are the mouth.
Head and eyes: silence is sampled under random poses and gazes, and the mean latent is regressed on what was asked.
"""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from .errors import InputError
from .media.audio import FPS, SAMPLE_RATE, read_audio
from .models.generator import Generator
from .motion.fingerprint import differ, known
from .motion.keyframes import CHANNELS, to_control
from .motion.match import Side, check_match
from .motion.rig import GOOD, Channel, Rig
from .motion.rig_learning import correlations
from .weights.checkpoints import AVATAR

log = logging.getLogger("imtalker")

SHIPPED = AVATAR / "rig.safetensors"
SOUNDS, NOISES = 4, 12
POSES = 60
SETTLING = 12  # frames at the start of a clip that are not looked at
LEAST = 0.5  # variance that speech gives a direction, over all its other movement
PARTS = {"horizontal": "eyes", "vertical": "eyes"}  # of the controlled channels; the others are the head's
NAMES = {"horizontal": "gaze horizontal", "vertical": "gaze vertical"}


@torch.inference_mode()
def ask(generator: Generator, progress: Callable[[float], None] = lambda share: None) -> Rig:
    """The rig of a generator's motion space: mouth 1, mouth 2, ...; yaw, pitch, roll, distance, x, y; gaze.

    The channels of head and eyes are in the units of the keyframe editors, around rest, the mouth's in deviations of
    speech. A direction that the weights hardly know gets a poor score and is off. The mouth can be taken from another
    motion cleanly; of a head that hardly moves, what is taken is only roughly its own. Takes seconds on a GPU, minutes
    on a CPU.
    progress: called with the share done, 0..1.
    """
    spoken = _spoken(generator, lambda share: progress(0.6 * share))
    asked, reached = _posed(generator, lambda share: progress(0.6 + 0.4 * share))
    others = (spoken - spoken.mean(dim=1, keepdim=True)).flatten(0, 2)
    noise = others.T @ others / len(others)
    noise = noise + 1e-4 * noise.diagonal().mean() * torch.eye(len(noise), dtype=noise.dtype)
    mouth, ratios = _mouth(spoken, noise)
    intercept = torch.ones(len(asked), 1, dtype=asked.dtype)
    solution = torch.linalg.lstsq(torch.cat([asked, intercept], dim=1), reached).solution
    head, rest = solution[:-1], solution[-1:]
    scores = _scores(asked, reached, noise)
    size = noise.diagonal().sqrt()
    for number, name in enumerate(CHANNELS):
        if (head[number] / size).abs().max() * asked[:, number].std() < 0.05:
            scores[number] = 0  # the control does nothing
            log.info("%s does not move these weights' motion.", name)
    usable = scores >= GOOD
    write_in = torch.zeros(len(mouth) + len(head), len(noise), dtype=noise.dtype)
    read_out = torch.zeros(len(noise), len(write_in), dtype=noise.dtype)
    used = torch.cat([torch.ones(len(mouth), dtype=torch.bool), usable])
    write_in[used] = torch.cat([mouth, head])[used]
    read_out[:, used] = _reading(write_in[used], noise)
    values = (spoken.flatten(0, 2) - rest) @ read_out
    channels = []
    for number, ratio in enumerate(ratios):
        seen = values[:, number]
        # in units of its deviation in speech, and positive where speech takes it
        unit = seen.std() * (1 if seen.mean() >= 0 else -1)
        read_out[:, number] /= unit
        write_in[number] *= unit
        low, high = sorted((seen / unit).quantile(torch.tensor([0.02, 0.98], dtype=seen.dtype)).tolist())
        channels.append(Channel(f"mouth {number + 1}", "mouth", low, high, (ratio / (1 + ratio)) ** 0.5, "generator"))
    for number, (name, limits) in enumerate(CHANNELS.items()):
        score = scores[number].item()
        part = PARTS.get(name, "head")
        low, high = limits.low - limits.rest, limits.high - limits.rest
        channels.append(Channel(NAMES.get(name, name), part, low, high, score, "generator"))
    rig = Rig(
        tuple(channels), read_out.float(), write_in.float(), rest.float(), generator.generation, generator.fingerprint
    )
    log.info("The generator knows %d directions of the mouth and %d of head and eyes.", len(ratios), int(usable.sum()))
    return rig


def rig_of(
    generator: Generator, folder: str | Path, progress: Callable[[float], None] = lambda share: None
) -> tuple[Rig, Path | None]:
    """The rig of these weights, and its file: shipped with them, kept in `folder`, or from `ask` and kept there now.

    The file is None if the folder cannot be written to; a warning says so. progress: as for `ask`.
    """
    if rig := shipped_rig(generator):
        return rig, SHIPPED
    for path in sorted(Path(folder).glob("generator_*.safetensors")):
        with contextlib.suppress(InputError):  # a damaged one is made again
            rig = Rig.load(path)
            if _belongs(rig, generator):
                return rig, path
    rig = ask(generator, progress)
    path = Path(folder) / f"{generator.fingerprint.replace(' ', '_')}.safetensors"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        rig.save(path)
    except (OSError, InputError) as error:
        log.warning("The rig is made again next time: %s", error)
        return rig, None
    log.info("The rig of these weights is kept in %s.", path)
    return rig, path


def shipped_rig(generator: Generator) -> Rig | None:
    """The rig that comes with these weights, None if they are not the avatar's."""
    rig = Rig.load(SHIPPED)
    return rig if _belongs(rig, generator) else None


def _belongs(rig: Rig, generator: Generator) -> bool:
    same = (rig.generation, rig.rest.shape[1]) == (generator.generation, generator.config.motion_size)
    return same and known(rig.weights, "generator") and not differ(rig.weights, generator.fingerprint)


def check_rig(rig: Rig, generator: Generator) -> None:
    """Raises InputError for a rig of another generation, size or other weights."""
    check_match(
        Side("the rig", rig.generation, rig.rest.shape[1], rig.weights),
        Side("the generator", generator.generation, generator.config.motion_size, generator.fingerprint),
        "choose a rig made for this generator.",
    )


def _spoken(generator: Generator, progress: Callable[[float], None]) -> Tensor:
    """Motion (SOUNDS,NOISES,T,size), float64: the avatar's sentence from different words on, with the same noises."""
    sentence = read_audio(AVATAR / "speech.wav")
    found = []
    for number in range(SOUNDS):
        turned = sentence.waveform.roll(-(number * sentence.waveform.shape[1] // SOUNDS), dims=1)
        heard = generator.encode_audio(turned, sentence.sample_rate)
        for seed in range(NOISES):
            motion = generator.sample(heard, _nobody(generator), cfg=1.0, seed=seed, joins="published")
            found.append(motion.latents[SETTLING:].double())
            progress((number * NOISES + seed + 1) / (SOUNDS * NOISES))
    return torch.stack(found).unflatten(0, (SOUNDS, NOISES))


def _posed(generator: Generator, progress: Callable[[float], None]) -> tuple[Tensor, Tensor]:
    """Values (POSES,channels) asked for, in the keyframes' units around rest, and the mean latents (POSES,size)."""
    random = torch.Generator().manual_seed(0)
    span = torch.tensor([min(c.high - c.rest, c.rest - c.low) for c in CHANNELS.values()], dtype=torch.float64)
    asked = (2 * torch.rand(POSES, len(CHANNELS), generator=random, dtype=torch.float64) - 1) * span
    window = generator.config.window
    silence = generator.encode_audio(torch.zeros(1, window * SAMPLE_RATE // FPS), SAMPLE_RATE)
    reached = []
    for number, values in enumerate(asked):
        keyframes = {name: [[0, c.rest + v]] for (name, c), v in zip(CHANNELS.items(), values.tolist())}
        control = to_control({"version": 1, "channels": keyframes}, window / FPS)
        motion = generator.sample(silence, _nobody(generator), control, cfg=1.0, seed=number, joins="published")
        reached.append(motion.latents[SETTLING:].double().mean(dim=0))
        progress((number + 1) / POSES)
    return asked, torch.stack(reached)


def _nobody(generator: Generator) -> SimpleNamespace:
    """A source in the middle of the motion space, which is all that sampling reads."""
    return SimpleNamespace(motion=torch.zeros(1, generator.config.motion_size), generation=generator.generation)


def _mouth(spoken: Tensor, noise: Tensor) -> tuple[Tensor, list[float]]:
    """Directions (n,size) that speech moves, and by how much more than anything else does, largest first."""
    sounds, noises, *_ = spoken.shape
    differs = spoken - spoken.mean(dim=0, keepdim=True)
    common = differs.mean(dim=1)
    remains = (differs - common[:, None]).flatten(0, 2)
    speech = common.flatten(0, 1).T @ common.flatten(0, 1) / ((sounds - 1) * spoken.shape[2])
    speech = speech - remains.T @ remains / len(remains) / (noises - 1)
    whiten = torch.linalg.inv(torch.linalg.cholesky(noise))
    ratios, turned = torch.linalg.eigh(whiten @ speech @ whiten.T)
    ratios, directions = ratios.flip(0), (whiten.T @ turned).flip(1)
    likely = [number for number in range(len(ratios) - 1) if ratios[number] >= LEAST]
    if not likely:
        log.warning("Speech hardly moves anything with these weights: they have no mouth part.")
        return noise.new_zeros(0, len(noise)), []
    # the mouth ends where the ratios drop most
    drops = [(ratios[number] / ratios[number + 1].clamp_min(LEAST / 10)).item() for number in likely]
    count = likely[drops.index(max(drops))] + 1
    return (noise @ directions[:, :count]).T, ratios[:count].tolist()


def _reading(write_in: Tensor, noise: Tensor) -> Tensor:
    """(channels,size) -> (size,channels): reads exactly what is written, least disturbed by all other movement."""
    weighted = torch.linalg.solve(noise, write_in.T)
    return weighted @ torch.linalg.inv(write_in @ weighted)


def _scores(asked: Tensor, reached: Tensor, noise: Tensor) -> Tensor:
    """The correlation of each control with what is read, in poses that it was not learned from, (channels,)."""
    held = torch.arange(len(asked)) % 3 == 0
    learned = torch.cat([asked[~held], torch.ones(int((~held).sum()), 1, dtype=asked.dtype)], dim=1)
    solution = torch.linalg.lstsq(learned, reached[~held]).solution
    strong = solution[:-1].norm(dim=1) > 1e-9
    scores = torch.zeros(asked.shape[1], dtype=asked.dtype)
    if not strong.any():
        return scores
    read = (reached[held] - solution[-1:]) @ _reading(solution[:-1][strong], noise)
    scores[strong] = correlations(read, asked[held][:, strong])
    return scores
