"""Hypothesis strategies: anything that other packs may put on a link."""

import io
from fractions import Fraction

import numpy as np
import torch
from hypothesis import strategies as st

from imtalker import Control, Motion
from imtalker.face.crop import Crop

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.fractions(),
    st.sampled_from([10**400, Fraction(24000, 1001), float("nan"), "16000", "\udcc7", object(), int, len]),
)
sides = st.integers(0, 5)
shapes = st.lists(sides, max_size=5)
kinds = st.sampled_from(
    [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int8, torch.int16, torch.int32]
    + [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn]
)
fills = st.sampled_from([0, 1, 0.5, -1, 255, 1e8, 1e300, float("nan"), float("inf")])


@st.composite
def tensors(draw, shape=shapes):
    """Small tensors and arrays of any type and content."""
    kind, value = draw(kinds), draw(fills)
    if not (kind.is_floating_point or kind.is_complex):
        value = min(max(int(np.nan_to_num(value, posinf=127, neginf=-1)), 0), 127)
    size = draw(shape)
    made = torch.full(size, value, dtype=torch.float64).to(kind)
    how = draw(st.sampled_from(["tensor", "array", "list", "gradient", "sparse", "expanded", "meta"]))
    if how in ("array", "list") and kind not in (torch.bfloat16, torch.float8_e4m3fn):
        return made.numpy() if how == "array" else made.tolist()
    if how == "gradient" and kind.is_floating_point and kind.itemsize > 1:
        return made.requires_grad_()
    if how == "sparse" and kind in (torch.float32, torch.float64):
        return made.to_sparse()
    if how == "expanded" and made.ndim:
        return made.expand(3, *made.shape)
    return made.to("meta") if how == "meta" else made


class Raises:
    """An object of which every use fails."""

    def __getattr__(self, name):
        raise RuntimeError(f"no {name}")

    def __len__(self):
        raise RuntimeError("no length")

    __getitem__ = __iter__ = __float__ = __bool__ = __len__


anything = st.recursive(
    st.one_of(scalars, tensors(), st.builds(Raises), st.just(io.BytesIO(b"x")), st.just(Motion(torch.zeros(2, 3)))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(
            st.sampled_from(["waveform", "sample_rate", "x", "y", "width", "height", "frames", "samples"]), inner
        ),
    ),
    max_leaves=4,
)
numbers = st.one_of(st.floats(), st.integers(-(10**12), 10**12), st.floats(0, 200), scalars, tensors())

audio = st.one_of(
    anything,
    st.fixed_dictionaries(
        {
            "waveform": st.one_of(tensors(), anything),
            "sample_rate": st.one_of(numbers, st.sampled_from([16000, 44100.0])),
        }
    ),
)
images = st.one_of(anything, tensors(st.tuples(sides, sides, sides, st.integers(1, 4)).map(list)))
masks = st.one_of(anything, tensors(st.lists(sides, min_size=2, max_size=4)))
named_box = st.one_of(
    st.fixed_dictionaries({name: numbers for name in ("x", "y", "width", "height")}),
    st.fixed_dictionaries({name: numbers for name in ("x0", "y0", "x1", "y1")}, optional={"score": numbers}),
)
box = st.one_of(named_box, st.lists(numbers, min_size=3, max_size=5), tensors(st.just([4])), st.none())
boxes = st.one_of(anything, box, st.lists(box, max_size=4), st.lists(st.lists(box, max_size=3), max_size=4))
crop = st.one_of(
    st.builds(Crop, numbers, numbers, numbers, numbers, numbers),
    st.builds(Crop, st.floats(), st.floats(), st.floats(), sides, sides),
    st.builds(Crop, st.floats(-9, 9), st.floats(-9, 9), st.floats(0, 400), sides, sides),
)
crops = st.one_of(anything, crop, st.lists(crop, max_size=3))
face = st.fixed_dictionaries(
    {"bbox_xyxy": st.one_of(st.lists(numbers, min_size=4, max_size=4), tensors())},
    optional={
        "score": numbers,
        "transformation_matrix": st.one_of(tensors(st.just([4, 4])), st.just(np.eye(4)), anything),
        "landmarks_xy": st.one_of(tensors(st.just([478, 2])), st.just(np.zeros((478, 2)))),
        "landmarks_3d": st.one_of(tensors(st.just([478, 3])), st.just(np.ones((478, 3)))),
        "blendshapes": st.one_of(anything, st.dictionaries(st.sampled_from(["jawOpen", "cheekPuff"]), numbers)),
    },
)
landmarks = st.one_of(
    anything,
    st.fixed_dictionaries(
        {
            "frames": st.one_of(anything, st.lists(st.one_of(st.none(), st.lists(face, max_size=2)), max_size=3)),
            "image_size": st.one_of(st.tuples(numbers, numbers), st.just((60, 80)), anything),
        }
    ),
)
ours = st.one_of(
    anything,
    st.builds(lambda fps: Motion(torch.zeros(2, 3), fps), st.floats(1e-300, 1e300)),
    st.builds(lambda fps: Control(gaze=torch.zeros(2, 2), fps=fps), st.floats(1e-300, 1e300)),
)


class Video:
    """A VIDEO of no known class, with whatever parts it claims."""

    def __init__(self, parts):
        self.parts = parts

    def get_components(self):
        if isinstance(self.parts, Exception):
            raise self.parts
        return self.parts


parts = st.fixed_dictionaries(
    {"images": images, "audio": audio, "frame_rate": st.one_of(numbers, st.just(Fraction(25)))}
)
videos = st.one_of(
    anything,
    st.builds(Video, st.one_of(anything, parts.map(lambda fields: type("Parts", (), fields)()))),
    st.builds(Video, st.sampled_from([OSError("gone"), ValueError("bad"), KeyError("k"), StopIteration()])),
)
