"""Runs the published code from a checkout outside this repository, on the same untrained weights; no code is copied.

It needs a few packages of its own: `pip install --no-deps --target FOLDER timm torchdiffeq`, then PYTHONPATH=FOLDER.
"""

import argparse
import importlib
import importlib.abc
import importlib.machinery
import re
import sys
import tempfile
import types
from pathlib import Path

import torch
from torch import Tensor, nn

from imtalker.errors import InputError
from imtalker.models.config import PUBLISHED
from imtalker.models.names import UNUSED
from imtalker.weights.untrained import made_up, untrained_generator

# the published modules import them for training and plotting; nothing timed here calls them
UNUSED_PACKAGES = ("torchvision", "matplotlib")


class Published:
    """The published renderer and, after `load_generator`, generator: float32, one frame per call, as published."""

    def __init__(self, path: str | Path, generation: str, device: torch.device, filled: bool = True):
        self.filled = filled  # False: the weights do not matter, on fake devices
        self.path, self.device, self.generation = Path(path).resolve(), device, generation
        for file in ("renderer/models.py", "generator/FM.py"):
            if not (self.path / file).is_file():
                raise InputError(f"{path} is no checkout of the published code: {file} is missing.")
        if str(self.path) not in sys.path:
            sys.path.insert(0, str(self.path))
        self.options = self._options()
        self.renderer = self._import("renderer.models").IMTRenderer(self.options)
        found = "v2" if any("down_block_0" in name for name in self.renderer.state_dict()) else "v1"
        if found != generation:
            raise InputError(f"{path} is a checkout of generation {found}: use --generation {found}.")
        if filled:
            fill(self.renderer)
        self.renderer.to(device).eval()

    def _import(self, name: str) -> types.ModuleType:
        absent = _Absent()
        sys.meta_path.append(absent)
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise InputError(f"The published code cannot be imported: {error}. See benchmarks/reference.py.") from error
        finally:
            # transformers, for example, must not mistake a stand-in for the real package
            sys.meta_path.remove(absent)
            for stand_in in [n for n, m in sys.modules.items() if getattr(m, "__loader__", None) is absent]:
                del sys.modules[stand_in]

    def _options(self) -> argparse.Namespace:
        parser = self._import("generator.options.base_options").BaseOptions().initialize(argparse.ArgumentParser())
        options = parser.parse_args([])
        options.rank = self.device
        return options

    def load_generator(self) -> None:
        """Builds the generator with an audio encoder of the published size."""
        audio = untrained_generator(PUBLISHED["generator"][self.generation]).audio_encoder.wav2vec2
        with tempfile.TemporaryDirectory() as folder:
            audio.save_pretrained(folder)
            self.options.wav2vec_model_path = folder
            self.generator = self._import("generator.FM").FMGenerator(self.options)
        if self.filled:
            fill(self.generator)
        self.generator.to(self.device).eval()

    @torch.no_grad()
    def encode_source(self, image: Tensor) -> tuple:
        """Image (1,3,S,S) -> everything a frame is rendered from: features, reference maps, identity, motion."""
        features, identity = self.renderer.app_encode(image)
        motion = self.renderer.mot_encode(image)
        maps = self.renderer.mot_decode(self.renderer.id_adapt(motion, identity))
        return features, maps, identity, motion

    @torch.no_grad()
    def render(self, source: tuple, latent: Tensor) -> Tensor:
        """Latent (1,32) -> frame (1,3,512,512)."""
        features, maps, identity, _ = source
        driving = self.renderer.mot_decode(self.renderer.id_adapt(latent, identity))
        return self.renderer.decode(driving, maps, features)

    @torch.no_grad()
    def encode_motion(self, image: Tensor) -> Tensor:
        """Image (1,3,S,S) -> latent (1,32)."""
        return self.renderer.mot_encode(image)

    @torch.no_grad()
    def sample(self, features: Tensor, motion: Tensor, cfg: float) -> Tensor:
        """Audio features (1,T,768) and the source's motion (1,32) -> motion latents.

        It takes features because the published audio encoder does not run on transformers of 2025 and later.
        """
        self.generator.audio_encoder.inference = lambda audio, seq_len: features
        data = {"a": features.new_zeros(1, 640 * features.shape[1]), "ref_x": motion}
        data |= {"pose": None, "cam": None, "gaze": None}
        return self.generator.sample(data, a_cfg_scale=cfg, nfe=10, seed=1)


def load_published(options: argparse.Namespace) -> Published | None:
    """The published renderer of --reference, or None without it."""
    return Published(options.reference, options.generation, options.device) if options.reference else None


def fill(model: nn.Module) -> None:
    """Fills in untrained weights under the published names; constants and unused weights stay as initialised."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        if UNUSED.search(name):
            continue
        ours = re.sub(r"\.conv\.weight_g$", ".conv.parametrizations.weight.original0", name)
        ours = re.sub(r"\.conv\.weight_v$", ".conv.parametrizations.weight.original1", ours)
        tensors[name] = made_up(ours, tuple(tensor.shape), 1)
    model.load_state_dict(tensors, strict=False)


class _Name(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports empty stand-ins for UNUSED_PACKAGES that are not installed (it comes last in sys.meta_path)."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in UNUSED_PACKAGES:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = self._attribute
        return module

    def exec_module(self, module):
        pass

    @staticmethod
    def _attribute(name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name(name, (), {})
