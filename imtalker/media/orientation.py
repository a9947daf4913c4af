"""How decoded video frames lie: the display matrix and pixels that are not square."""

from fractions import Fraction
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from av import VideoFrame
    from av.sidedata.sidedata import SideDataContainer

# Pixels more stretched than this are a broken header.
MAX_STRETCH = 8
# A display matrix this far from a right angle (sine) is said to be turned to the nearest one.
ANGLE_TOLERANCE = 0.02


def side_data(frame: "VideoFrame") -> "SideDataContainer":
    """A frame's side data, without the kinds that this version of PyAV has no name for."""
    try:
        return frame.side_data
    except ValueError:
        return _without_unknown(frame).side_data


def _without_unknown(frame: "VideoFrame") -> "VideoFrame":
    """The same frame without EXIF and other newer kinds of side data, over which PyAV raises ValueError."""
    from av.filter import Graph
    from av.sidedata.sidedata import Type

    graph = Graph()
    nodes = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000))]
    newest = max(kind.value for kind in Type)
    nodes += [graph.add("sidedata", mode="delete", type=str(kind)) for kind in range(newest + 1, newest + 9)]
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull()


def display_matrix(frame: "VideoFrame") -> tuple[float, float, float, float]:
    """a, b, c, d of a frame: displayed x = a x + c y, displayed y = b x + d y."""
    data = side_data(frame)
    kinds = {entry.type.name: entry for entry in data}
    if "DISPLAYMATRIX" not in kinds:
        return 1, 0, 0, 1
    a, b, _, c, d = memoryview(bytes(kinds["DISPLAYMATRIX"])).cast("i")[:5]
    return (a, b, c, d) if any((a, b, c, d)) else (1, 0, 0, 1)


def is_right_angle(matrix: tuple[float, float, float, float]) -> bool:
    """Whether a display matrix turns by a multiple of 90 degrees, mirrored or not."""
    a, b, c, d = map(abs, matrix)
    return min(a + d, b + c) <= ANGLE_TOLERANCE * max(a + d, b + c)


def swaps_sides(matrix: tuple[float, float, float, float]) -> bool:
    """Whether width and height change places."""
    a, b, c, d = map(abs, matrix)
    return a + d < b + c


def upright(image: Tensor, matrix: tuple[float, float, float, float]) -> Tensor:
    """An image (H,W,C) as a display matrix shows it, turned to the nearest right angle."""
    a, b, c, d = matrix
    if swaps_sides(matrix):
        image, a, d = image.transpose(0, 1), c, b
    return image.flip([axis for axis, sign in ((0, d), (1, a)) if sign < 0]).contiguous()


def square_pixels(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """The size of a frame with square pixels: its height stays, its width is stretched by the pixels' aspect ratio."""
    if not aspect or not Fraction(1, MAX_STRETCH) <= aspect <= MAX_STRETCH:
        return width, height
    return max(1, round(width * aspect)), height
