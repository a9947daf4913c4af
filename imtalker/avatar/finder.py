"""Trains the network that finds drawn heads (`imtalker/face/drawn_heads.py`).

    python -m imtalker.avatar.finder --minutes 15

Heads are drawn, framed as the avatar learns them, and put one or two at a time onto pictures of other things; a third
of the pictures show no head but pieces of one.
"""

import argparse
import logging
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..drawn.head import GROWTH, MOTION, MOTION_SIZE, TRAVEL
from ..drawn.people import random_appearances
from ..drawn.portraits import RAISE, ZOOM, draw
from ..face.drawn_heads import STRIDE, USUAL_SIDE, WEIGHTS, Finder

log = logging.getLogger("imtalker")

SIDE = 96  # pixels of a training picture
SIDES = (26.0, 120.0)  # pixels of the squares that heads are drawn in
DRAWN = 96  # pixels at which heads are drawn
HEADLESS = 0.35  # share of the pictures without a head
REST_Y = 0.02 - RAISE  # the head's centre at rest, in the drawing's units from the square's centre


def motions(count: int) -> Tensor:
    """Random motions (count,16), half of them near rest."""
    motion = torch.zeros(count, MOTION_SIZE)
    wide = torch.where(torch.rand(count, 1) < 0.5, 0.3, 1.0)
    motion[:, : len(MOTION)] = (wide * torch.randn(count, len(MOTION)).mul(0.6)).clamp(-1, 1)
    for name in ("blink", "mouth_open"):
        motion[:, MOTION.index(name)] = (torch.rand(count) * 1.6 - 0.6).clamp(0, 1)
    return motion


def heads(count: int) -> tuple[Tensor, Tensor]:
    """Drawn pictures (count,3,S,S) and the square of each head in it: centre x, y and half side, in -1..1."""
    people = random_appearances(count, int(torch.randint(2**31, ())))
    motion = motions(count)
    x, y, scale = (motion[:, MOTION.index(name)] for name in ("x", "y", "scale"))
    size = 1 + GROWTH * scale
    square = torch.stack([ZOOM * TRAVEL * x, ZOOM * (REST_Y - TRAVEL * y) - size * ZOOM * REST_Y, size], dim=1)
    return draw(people, motion, DRAWN), square


def backgrounds(count: int) -> Tensor:
    """Pictures (count,3,SIDE,SIDE) of no head: plain, blotches, or shapes; black and white among them."""
    plain = torch.rand(count, 3, 1, 1)
    plain = torch.where(torch.rand(count, 1, 1, 1) < 0.3, (torch.rand(count, 1, 1, 1) < 0.5).float(), plain)
    cells = int(2 ** torch.randint(1, 6, ()))
    blotches = F.interpolate(torch.rand(count, 3, cells, cells), (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    picture = torch.where(torch.rand(count, 1, 1, 1) < 0.4, plain.expand(-1, -1, SIDE, SIDE), blotches)
    line = torch.linspace(-1, 1, SIDE)
    for _ in range(int(torch.randint(0, 9, ()))):  # ellipses: eyes, plates and moons are not heads
        centre, radius = 2 * torch.rand(count, 2, 1, 1) - 1, 0.03 + 0.6 * torch.rand(count, 2, 1, 1) ** 2
        far = ((line[None, None] - centre[:, 0]) / radius[:, 0]) ** 2 + (
            (line[:, None] - centre[:, 1]) / radius[:, 1]
        ) ** 2
        shown = ((far < 1) & (torch.rand(count, 1, 1) < 0.5))[:, None]
        picture = torch.where(shown, torch.rand(count, 3, 1, 1), picture)
    return picture


def texture(count: int) -> Tensor:
    """Noise (count,1,DRAWN,DRAWN) with detail of every size, as photographs have it, of deviation 1."""
    layers = []
    for cells in (3, 6, 12, 24, 48, 96):
        layer = torch.randn(count, 1, cells, cells)
        layers.append(F.interpolate(layer, (DRAWN, DRAWN), mode="bicubic") * torch.rand(count, 1, 1, 1))
    noise = torch.stack(layers).sum(0)
    return noise / noise.std((2, 3), keepdim=True)


def photographed(pictures: Tensor) -> Tensor:
    """The same pictures with light, texture and mixed colours: like people, whom this network must leave alone."""
    count = len(pictures)
    lit = pictures * (1 + (0.1 + 0.3 * torch.rand(count, 1, 1, 1)) * texture(count))
    lit = lit + 0.05 * texture(count)
    grey = lit.mean(1, keepdim=True)
    return (grey + (0.3 + 0.7 * torch.rand(count, 1, 1, 1)) * (lit - grey)).mul(0.5 + 0.4 * torch.rand(count, 3, 1, 1))


def pieces(pictures: Tensor) -> Tensor:
    """The same pictures as no drawn head: photographed, upside down, or their tiles shuffled."""
    count, tiles = len(pictures), int(torch.randint(2, 5, ()))
    side = DRAWN // tiles
    blocks = F.unfold(pictures, side, stride=side)
    order = torch.rand(count, blocks.shape[2]).argsort(1)
    mixed = F.fold(blocks.gather(2, order[:, None].expand_as(blocks)), (side * tiles,) * 2, side, stride=side)
    mixed = F.interpolate(mixed, (DRAWN, DRAWN))
    kind = torch.rand(count, 1, 1, 1)
    kind = torch.rand(count, 1, 1, 1)
    other = torch.where(kind < 0.2, pictures.flip(2), mixed)
    return torch.where(kind < 0.4, other, photographed(pictures).clamp(0, 1))


def put(canvas: Tensor, pictures: Tensor, centre: Tensor, half: Tensor) -> Tensor:
    """Puts pictures (B,3,S,S) onto canvases as squares with centres (B,2) and half sides (B,1) in -1..1.

    Some fill the canvas with their edges repeated, as a crop that leaves its picture.
    """
    line = (2 * torch.arange(SIDE) + 1) / SIDE - 1
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
    grid = (grid - centre[:, None, None]) / half[:, None, None]
    shrink = max(1.0, DRAWN / SIDE / float(half.mean()))
    soft = F.interpolate(pictures, scale_factor=1 / shrink, mode="bilinear", antialias=True) if shrink > 1 else pictures
    inside = ((grid.abs() <= 1).all(-1) | (torch.rand(len(grid), 1, 1) < 0.2))[:, None]
    return torch.where(inside, F.grid_sample(soft, grid, padding_mode="border", align_corners=False), canvas)


class Cast:
    """A changing set of drawn heads, because drawing takes longer than everything else."""

    def __init__(self, size: int = 1024, changed: int = 4):
        self.changed = changed
        self.pictures, self.squares = heads(size)

    def pick(self, count: int) -> tuple[Tensor, Tensor]:
        """Pictures and squares of `count` heads, as from `heads`; a few heads of the cast are replaced."""
        places = torch.randint(len(self.pictures), (self.changed,))
        self.pictures[places], self.squares[places] = heads(self.changed)
        chosen = torch.randint(len(self.pictures), (count,))
        return self.pictures[chosen], self.squares[chosen]


def batch(count: int, cast: Cast) -> tuple[Tensor, Tensor]:
    """Pictures (count,3,SIDE,SIDE) in 0..1, and their squares (count,2,3): centre x, y and side, NaN for none."""
    canvas = backgrounds(count)
    squares = []
    low, high = (math.log(side) for side in SIDES)
    sides = torch.exp(low + (high - low) * torch.rand(()))
    sides = sides * torch.exp(0.1 * torch.randn(count, 2)) / SIDE  # half sides in -1..1
    first = 1.2 * (2 * torch.rand(count, 2) - 1)
    first = torch.where(torch.rand(count, 1) < 0.3, 0.1 * torch.randn(count, 2), first)
    beside = torch.stack(
        [(sides[:, 0] + sides[:, 1]) * (2 * torch.rand(count).round() - 1), 0.1 * torch.randn(count)], 1
    )
    has_head = torch.rand(count) >= HEADLESS
    for place, (centre, shown) in enumerate(
        ((first + beside, torch.rand(count) < 0.4), (first, torch.ones(count).bool()))
    ):
        pictures, square = cast.pick(count)
        half = sides[:, place, None]
        drawn = torch.where(has_head[:, None, None, None], pictures, pieces(pictures))
        canvas = torch.where(shown[:, None, None, None], put(canvas, drawn, centre, half), canvas)
        middle = (centre + half * square[:, :2] + 1) / 2 * SIDE
        found = torch.cat([middle, half * square[:, 2:] * SIDE], dim=1)
        inside = ((middle > 0) & (middle < SIDE)).all(1) & shown & has_head
        squares.append(torch.where(inside[:, None], found, torch.nan))
    gain, lift = 1 + 0.15 * torch.randn(count, 3, 1, 1), 0.05 * torch.randn(count, 3, 1, 1)
    noise = 0.03 * torch.rand(count, 1, 1, 1) * torch.randn_like(canvas)
    return (canvas * gain + lift + noise).clamp(0, 1), torch.stack(squares, dim=1)


def loss(cells: Tensor, squares: Tensor) -> Tensor:
    """Focal loss of the scores, and the error of the squares near their centres. squares: (B,2,3), NaN for none."""
    count, _, rows, columns = cells.shape
    x, y = STRIDE * (torch.arange(columns) + 0.5), STRIDE * (torch.arange(rows) + 0.5)
    heat, fit, weight = torch.zeros(count, rows, columns), 0.0, 0.0
    logit = cells[:, 0]
    for place in range(squares.shape[1]):
        there = squares[:, place].isfinite().all(1)[:, None, None]
        sx, sy, side = squares[:, place].nan_to_num(nan=1.0)[:, :, None, None].unbind(1)
        dx, dy = sx - x[None, None], sy - y[None, :, None]
        near = torch.exp(-(dx**2 + dy**2) / (2 * (0.08 * side) ** 2 + 2 * (0.3 * STRIDE) ** 2)) * there
        exact = (dx.abs() <= STRIDE / 2) & (dy.abs() <= STRIDE / 2) & there
        heat = torch.maximum(heat, torch.where(exact, 1.0, near))
        target = torch.stack(
            [
                (dx / STRIDE).expand_as(near),
                (dy / STRIDE).expand_as(near),
                torch.log(side / USUAL_SIDE).expand_as(near),
            ],
            dim=1,
        )
        scale = torch.stack([side / USUAL_SIDE] * 2 + [torch.ones_like(side) / 3], dim=1)  # errors relative to the side
        wrong = F.smooth_l1_loss(cells[:, 1:] / scale, target / scale, reduction="none", beta=0.05).sum(1)
        fit, weight = fit + (wrong * near * (near > 0.3)).sum(), weight + (near * (near > 0.3)).sum()
    sure = logit.sigmoid()
    hit = -((1 - sure) ** 2 * F.logsigmoid(logit) * (heat == 1)).sum()
    missed = -((1 - heat) ** 4 * sure**2 * F.logsigmoid(-logit) * (heat < 1)).sum()
    return (hit + missed) / (heat == 1).sum().clamp_min(1) + fit / weight.clamp_min(1)


def train(out: Path, minutes: float, start: Path | None = None, size: int = 32, seed: int = 0) -> Finder:
    """Trains a finder, or the one in `start` further, for so many minutes on the CPU; writes it in half precision."""
    torch.manual_seed(seed)
    finder = Finder()
    torch.nn.init.constant_(finder.head.bias[:1], -3.0)
    if start:
        finder.load_state_dict({name: tensor.float() for name, tensor in load_file(start).items()})
    cast = Cast()
    optimizer = torch.optim.AdamW(finder.parameters(), 2e-3, weight_decay=1e-3)
    started, step, mean = time.monotonic(), 0, 0.0
    while (done := (time.monotonic() - started) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = (
            2e-3 * min(1.0, step / 100) * (0.02 + 0.98 * math.cos(done * math.pi / 2) ** 2)
        )
        pictures, squares = batch(size, cast)
        error = loss(finder(pictures), squares)
        optimizer.zero_grad()
        error.backward()
        torch.nn.utils.clip_grad_norm_(finder.parameters(), 5.0)
        optimizer.step()
        step, mean = step + 1, mean + float(error.detach())
        if step % 100 == 0:
            log.info("step %d, %.0f %%, error %.4f", step, 100 * done, mean / 100)
            mean = 0.0
            _save(finder, out)
    _save(finder, out)
    return finder


def _save(finder: Finder, out: Path) -> None:
    save_file({name: tensor.detach().half().contiguous() for name, tensor in finder.state_dict().items()}, str(out))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m imtalker.avatar.finder", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=WEIGHTS, metavar="FILE", help="where to write it (%(default)s)")
    parser.add_argument("--minutes", type=float, default=15.0, help="training time (%(default)g)")
    parser.add_argument("--start", type=Path, metavar="FILE", help="a finder to train further")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    train(options.out, options.minutes, options.start)


if __name__ == "__main__":
    main()
