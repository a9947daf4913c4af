"""A live face with a clock of its own: it waits for nothing, and computing takes as long as is asked."""

import math
from types import SimpleNamespace

import torch

from imtalker.live.mixer import Mixer
from imtalker.live.stage import Stage
from imtalker.media.audio import FPS

RATE = 16000


class Latents:
    """Replaces a renderer: keeps the latents that it is asked to render, each of which takes `cost` seconds."""

    def __init__(self, theatre: "Theatre", generation: str):
        self.theatre, self.generation = theatre, generation
        self.config = SimpleNamespace(input_size=8)

    def stream(self, source, motion, batch_size=None):
        self.theatre.time += self.theatre.cost * len(motion)
        self.theatre.latents.append(motion.latents)
        yield torch.zeros(len(motion), 1, 1, 3)

    def encode_motion(self, images):
        """The pictures' mean brightness in every value."""
        return SimpleNamespace(latents=images.mean(dim=(1, 2, 3))[:, None].expand(-1, self.theatre.size))


class Theatre:
    def __init__(self, generator, source, *, cost=0.0, delay=8, sway=0.5, rate=RATE, rig=None, **settings):
        self.time, self.cost, self.ticks, self.size = 0.0, cost, 0, source.motion.shape[1]
        self.latents, self.shown = [], []  # of each rendered frame; and its number, with the time at which it was ready
        self.mixer = Mixer(rate)
        settings = {"nfe": 10, "chunk": 0.16, "lookahead": 0.12, "history": 4.0} | settings
        renderer = Latents(self, source.generation)
        self.stage = Stage(renderer, generator, source, self.mixer, settings, sway, self._show, lambda: self.time, rig)
        self.stage.delay = delay

    def _show(self, number, picture):
        self.shown.append((number, self.time))

    @property
    def number(self) -> int:
        """The frame that is shown now."""
        return self.ticks - self.stage.delay

    def run(self, seconds: float, each=lambda theatre: None) -> None:
        """Goes on for so long; `each` is called before each frame's sound is mixed."""
        end = self.ticks + round(seconds * FPS)
        while self.ticks < end:
            while self.ticks < end and (self.ticks + 1) / FPS <= self.time + 1e-9:
                self.ticks += 1
                each(self)
                self.mixer.mix(self.ticks)
            wake = self.stage.step()
            self.time = max(self.time, min(wake, (self.ticks + 1) / FPS))

    def say(self, samples: torch.Tensor, rate: int = RATE) -> None:
        self.mixer.say(samples, rate)

    def interrupt(self) -> None:
        self.mixer.interrupt(self.number + 1)
        self.stage.order(self.stage.cut)

    def motion(self) -> torch.Tensor:
        """The latents (T,C) of all rendered frames."""
        return torch.cat(self.latents)

    def late(self) -> list[float]:
        """For each rendered frame, the seconds that it was late."""
        return [ready - (number + self.stage.delay) / FPS for number, ready in self.shown]

    def sound(self) -> torch.Tensor:
        """All that was said, (1,samples)."""
        return self.mixer.read(0, self.mixer.end)[None]


def syllables(seconds: float, rate: int = RATE, seed: int = 1) -> torch.Tensor:
    """Noise in syllables, (samples,)."""
    count = math.ceil(seconds * rate)
    noise = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    return 0.2 * noise * torch.sin(torch.arange(count) * (9 / rate))
