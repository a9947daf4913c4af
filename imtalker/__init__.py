"""IMTalker: a portrait and speech, or a driving video, to a talking-head video (after arXiv 2511.22167)."""

from . import torch_floor  # noqa: F401 (first, before anything fails on an old PyTorch)
from .dubbing.dub import dub
from .errors import InputError
from .live.engine import Live
from .models.generator import AudioFeatures, Generator
from .models.renderer import Renderer, Source
from .motion.control import Control
from .motion.motion import Motion
from .motion.rig import Rig
from .pipeline import Clip, reenact, talk
from .session import Session
from .version import __version__
from .weights.checkpoints import load_generator, load_renderer, save_weights

__all__ = [
    "AudioFeatures",
    "Clip",
    "Control",
    "Generator",
    "InputError",
    "Live",
    "Motion",
    "Renderer",
    "Rig",
    "Session",
    "Source",
    "__version__",
    "dub",
    "load_generator",
    "load_renderer",
    "reenact",
    "save_weights",
    "talk",
]
