"""What a rig is worth, on the avatar, whose latents have names, in a motion space whose names were taken away.

    python -m benchmarks.rig [--seconds 40] [--pictures]

A random matrix is folded into the avatar's weights (benchmarks/scrambled.py). One rig is learned from named values of
one person's speech and tested on other people's; one is asked of the generator alone. With --pictures, readings are
taken off drawings instead, and relative reenactment is rendered and read back; that takes minutes. Speech is
espeak-ng's, which has to be installed.
"""

import torch
from torch import Tensor

from imtalker import Motion, load_generator, load_renderer
from imtalker.avatar.measure import bare_source
from imtalker.avatar.readback import READINGS, correlation, find_head, read
from imtalker.avatar.speech_clips import SECONDS, make_speech_clip
from imtalker.drawn.head import DEGREES, MOTION, MOTION_SIZE
from imtalker.drawn.people import Appearance, random_appearances
from imtalker.drawn.portraits import draw
from imtalker.media.audio import FPS, SAMPLE_RATE
from imtalker.motion.retarget import retarget
from imtalker.motion.rig_learning import correlations, learn
from imtalker.rigging import ask
from imtalker.weights.checkpoints import AVATAR, find_weights

from . import measure
from .avatar import _channels_last, _colour_error
from .scrambled import mixed, mixed_renderer, mixing

PART = dict.fromkeys(MOTION, "head") | {
    **dict.fromkeys(("gaze_x", "gaze_y", "blink"), "eyes"),
    **dict.fromkeys(("mouth_open", "mouth_width", "mouth_round", "smile"), "mouth"),
    "brows": "brows",
}
TESTED = (7001, 7002)  # clips of other people
NOISE = 0.05  # of each reading's deviation
AT_A_TIME = 50  # pictures
EVERY = 10  # of so many frames one is drawn and read: reading takes seconds, and neighbours look alike
TURNED = 0.4  # yaw of the portrait that is reenacted: 16 degrees


def main(arguments: list[str] | None = None) -> dict:
    parser = measure.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=40, help="of speech to learn from (%(default)g)")
    parser.add_argument("--pictures", action="store_true", help="readings off pictures, and relative reenactment")
    options = measure.parse(parser, arguments)
    generator = load_generator(find_weights(AVATAR, "generator"))
    matrix = mixing(1)
    learned = performance(range(7100, 7100 + max(1, round(options.seconds / SECONDS))))
    tested = performance(TESTED)
    table = [{"what": "learned from values", **row} for row in from_values(learned, tested, matrix)]
    table += [{"what": "the models alone", **row} for row in from_models(generator, matrix)]
    if options.pictures:
        renderer = load_renderer(find_weights(AVATAR, "renderer"))
        rows = from_pictures(renderer, learned[::EVERY], tested[::EVERY], matrix)
        table += [{"what": "off pictures", **row} for row in rows]
        table += [{"what": "relative reenactment", **row} for row in reenacted(renderer, tested[: 20 * EVERY : EVERY])]
    return measure.report(options, "rig", table)


def performance(clips: range | tuple[int, ...]) -> Tensor:
    """What people do while they speak these clips, (T,16)."""
    return torch.cat([make_speech_clip(number, held_out=True).motion for number in clips])


def from_values(learned: Tensor, tested: Tensor, matrix: Tensor) -> list[dict]:
    """Of each channel: r with the truth on other people, the same with noise in what was learned from, what writing it
    does to itself and to others, and how far other parts move when its part is taken, all in deviations."""
    clean, noisy = (learn(Motion(learned @ matrix), readings_of(learned, noise), PART) for noise in (0.0, NOISE))
    seen = torch.linalg.inv(matrix)
    spread = learned[:, : len(MOTION)].std(0)
    base, other = (Motion(half @ matrix) for half in tested.chunk(2))
    rows = []
    for number, name in enumerate(MOTION):
        written = ((clean.write_in[number] * spread[number]) @ seen)[: len(MOTION)] / spread
        part = PART[name]
        moved = ((clean.combine(base, other, [part]).latents - base.latents) @ seen)[:, : len(MOTION)] / spread
        outside = [i for i, each in enumerate(MOTION) if PART[each] != part]
        rows.append(
            {
                "channel": name,
                "r": correlation(clean.read(Motion(tested @ matrix))[name], tested[:, number]),
                "r, noise": correlation(noisy.read(Motion(tested @ matrix))[name], tested[:, number]),
                "gain": written[number].item(),
                "cross-talk": torch.cat([written[:number], written[number + 1 :]]).abs().max().item(),
                "part moves others": moved[:, outside].square().mean(0).sqrt().max().item(),
            }
        )
    return rows


def readings_of(motion: Tensor, noise: float = 0.0) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(3)
    rows = motion + noise * motion.std(0) * torch.randn(motion.shape, generator=random)
    return dict(zip(MOTION, rows.unbind(1)))


def from_models(generator, matrix: Tensor) -> list[dict]:
    """The mouth's directions, what taking the mouth from another clip keeps, and what writing a control moves."""
    rig = ask(mixed(generator, matrix))
    back = torch.linalg.inv(matrix)
    rows = [
        {"channel": channel.name, "ratio": channel.score**2 / (1 - channel.score**2)}
        for channel in rig.channels
        if channel.part == "mouth"
    ]
    base, other = (Motion(spoken(generator, number, seed) @ matrix) for seed, number in enumerate(TESTED))
    taken = rig.combine(base, other, ["mouth"]).latents @ back
    for name in MOTION[:-1]:
        of = (other if PART[name] == "mouth" else base).latents @ back
        rows.append({"channel": name, "r, mouth taken": correlations(taken, of)[MOTION.index(name)].item()})
    names = {"yaw": "yaw", "pitch": "pitch", "roll": "roll", "gaze horizontal": "gaze_x", "gaze vertical": "gaze_y"}
    for channel, name in names.items():
        number = rig.names.index(channel)
        change = (rig.write_in[number] @ back)[: len(MOTION)]
        own = change[MOTION.index(name)].abs().item()
        change[MOTION.index(name)] = 0
        rows.append({"channel": channel, "cross-talk": change.abs().max().item() / own})
    return rows


def spoken(generator, number: int, seed: int) -> Tensor:
    """What the generator makes of a clip's speech, (T,16)."""
    clip = make_speech_clip(number, held_out=True)
    return generator.sample(
        generator.encode_audio(clip.waveform[None], SAMPLE_RATE), bare_source(), cfg=1.0, seed=seed
    ).latents


def from_pictures(renderer, learned: Tensor, tested: Tensor, matrix: Tensor) -> list[dict]:
    """Of each reading: its own r with the truth on drawings of another person, and the rig's on the same drawings."""
    model = mixed_renderer(renderer, matrix)
    somebody, another = random_appearances(1, 40), random_appearances(1, 41)
    motion, values = encoded(model, somebody, learned)
    rig = learn(motion, values, PART)
    motion, values = encoded(model, another, tested)
    found = rig.read(motion)
    opened = tested[:, MOTION.index("blink")] < 0.5  # a shut eye shows no gaze
    rows = []
    for name in READINGS:
        kept = opened if name.startswith("gaze") else torch.ones_like(opened)
        truth = tested[kept, MOTION.index(name)]
        own, by_rig = correlation(values[name][kept], truth), correlation(found[name][kept], truth)
        rows.append({"channel": name, "r, reading": own, "r": by_rig, "gap": own - by_rig})
    return rows


def encoded(renderer, person: Appearance, motion: Tensor) -> tuple[Motion, dict[str, Tensor]]:
    """Drawings of a person who moves so, as the renderer encodes them, and as they are read."""
    latents, values = [], []
    for part in motion.split(AT_A_TIME):
        people = person.repeat_interleave(len(part))
        images = draw(people, part, renderer.config.input_size)
        latents.append(renderer.encode_motion(_channels_last(images)).latents)
        values.append(read(images, people))
    found = {name: torch.cat([value[name] for value in values]) for name in READINGS}
    return Motion(torch.cat(latents), FPS / EVERY), found


def reenacted(renderer, motion: Tensor) -> list[dict]:
    """A turned portrait that follows another person, absolute and relative: read back off the rendered frames."""
    portrait, driver = random_appearances(1, 50), random_appearances(1, 51)
    own = torch.zeros(1, MOTION_SIZE)
    own[:, MOTION.index("yaw")] = TURNED
    size = renderer.config.input_size
    source = renderer.encode_source(_channels_last(draw(portrait, own, size)))
    driving = renderer.encode_motion(_channels_last(draw(driver.repeat_interleave(len(motion)), motion, size)))
    rows = []
    for way, driven in (("absolute", driving), ("relative", retarget(driving, source.motion))):
        shown = motion if way == "absolute" else own + motion - motion[:1]
        frames = renderer.render(source, driven).permute(0, 3, 1, 2)
        people = portrait.repeat_interleave(len(frames))
        head = torch.cat([find_head(f, p) for f, p in zip(frames.split(AT_A_TIME), _parts(people))])
        row = {"way": way, "colours": _colour_error(frames, people, shown)}
        for name, degrees in DEGREES.items():
            values = head[:, MOTION.index(name)]
            row[f"{name} at the reference"] = degrees * (values[0] - own[0, MOTION.index(name)]).item()
            row[f"{name}, r of changes"] = correlation(values, motion[:, MOTION.index(name)])
        mouth = read(frames, people, shown)["mouth_open"]
        row["mouth_open, r of changes"] = correlation(mouth, motion[:, MOTION.index("mouth_open")])
        rows.append(row)
    return rows


def _parts(people: Appearance):
    return (people[slice(start, start + AT_A_TIME)] for start in range(0, 10**6, AT_A_TIME))


if __name__ == "__main__":
    measure.run(main)
