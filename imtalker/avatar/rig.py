"""The avatar's rig: its latents are named (drawn/head.py), so nothing has to be learned.

    python -m imtalker.avatar.rig

writes rig.safetensors for the weights beside it.
"""

import torch

from ..drawn.head import GROWTH, MOTION, MOTION_SIZE
from ..motion.keyframes import GAZE, POSE
from ..motion.rig import Channel, Rig
from ..weights.checkpoints import AVATAR, find_weights, load_generator, load_renderer
from .visemes import LIMITS, SIDES

# name: (part, value of drawn.head.MOTION, what a 1 of it is in the channel's unit, lowest, highest): head and gaze in
# the units of the keyframe editors, distance as the change from 1
CHANNELS = {
    **{name: ("head", name, LIMITS[name], POSE[name].low, POSE[name].high) for name in ("yaw", "pitch", "roll")},
    "distance": ("head", "scale", -GROWTH, -GROWTH, GROWTH),
    **{name: ("head", name, SIDES, -SIDES, SIDES) for name in ("x", "y")},
    "gaze horizontal": ("eyes", "gaze_x", LIMITS["gaze_x"], GAZE["horizontal"].low, GAZE["horizontal"].high),
    "gaze vertical": ("eyes", "gaze_y", LIMITS["gaze_y"], GAZE["vertical"].low, GAZE["vertical"].high),
    "blink": ("eyes", "blink", 1.0, 0.0, 1.0),
    "brows": ("brows", "brows", 1.0, -1.0, 1.0),
    "mouth open": ("mouth", "mouth_open", 1.0, 0.0, 1.0),
    "mouth wide": ("mouth", "mouth_width", 1.0, -1.0, 1.0),
    "mouth round": ("mouth", "mouth_round", 1.0, 0.0, 1.0),
    "smile": ("mouth", "smile", 1.0, -1.0, 1.0),
}


def named_rig(weights: str = "") -> Rig:
    """The rig of any models that move the drawn head by its named values.

    weights: their fingerprints (motion/fingerprint.py).
    """
    read_out = torch.zeros(MOTION_SIZE, len(CHANNELS))
    write_in = torch.zeros(len(CHANNELS), MOTION_SIZE)
    for number, (_, value, unit, _, _) in enumerate(CHANNELS.values()):
        read_out[MOTION.index(value), number] = unit
        write_in[number, MOTION.index(value)] = 1 / unit
    channels = (Channel(name, part, low, high, 1.0, "names") for name, (part, _, _, low, high) in CHANNELS.items())
    return Rig(tuple(channels), read_out, write_in, torch.zeros(1, MOTION_SIZE), "v2", weights)


def main() -> None:
    models = load_generator(find_weights(AVATAR, "generator")), load_renderer(find_weights(AVATAR, "renderer"))
    named_rig(" ".join(model.fingerprint for model in models)).save(AVATAR / "rig.safetensors")


if __name__ == "__main__":
    main()
