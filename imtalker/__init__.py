"""IMTalker: a portrait and speech, or a driving video, to a talking-head video (after arXiv 2511.22167)."""

from .checkpoints import load_generator, load_renderer, save_weights
from .control import Control
from .errors import InputError
from .models.generator import AudioFeatures, Generator
from .models.renderer import Renderer, Source
from .motion import Motion
from .pipeline import Clip, reenact, talk
from .session import Session

__version__ = "0.1.0"

__all__ = [
    "AudioFeatures",
    "Clip",
    "Control",
    "Generator",
    "InputError",
    "Motion",
    "Renderer",
    "Session",
    "Source",
    "load_generator",
    "load_renderer",
    "reenact",
    "save_weights",
    "talk",
]
