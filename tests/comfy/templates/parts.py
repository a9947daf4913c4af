"""What several workflows have in common: the pack's own material and models, and the words of their notes."""

from building import Graph, Placed, Slot

AVATAR = {"model": "avatar"}
GUIDANCE = 1.0  # the cfg that the avatar was measured with
PEOPLE = (
    "**Real people:** choose **published** in both loaders (downloads 2.7 GB once) and set **cfg** to 0. The avatar "
    "only knows drawn heads."
)


def note(graph: Graph, x: int, y: int, width: int, *lines: str) -> None:
    """The three steps that every workflow has: what Run does, how to use one's own files, how to show people."""
    height = 60 + sum(22 * (1 + len(line) * 8 // width) + 20 for line in lines)
    graph.note("\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1)), x, y, width, height)


def example(graph: Graph, x: int = 0, y: int = 0) -> Placed:
    with graph.group("Example", x, y):
        return graph.add("IMTalkerExample")


def models(graph: Graph, x: int = 0, y: int = 340) -> tuple[Slot, Slot]:
    """The avatar's renderer and generator."""
    with graph.group("Models", x, y):
        renderer = graph.add("IMTalkerLoadRenderer", **AVATAR)
        generator = graph.add("IMTalkerLoadGenerator", **AVATAR)
    return renderer["renderer"], generator["generator"]


def result(graph: Graph, video: Slot, x: int, y: int = 0) -> Placed:
    with graph.group("Result", x, y):
        return graph.add("SaveVideo", video=video, filename_prefix="video/IMTalker")


def create_video(graph: Graph, images: Slot, fps: Slot, audio: Slot) -> Slot:
    return graph.add("CreateVideo", images=images, fps=fps, audio=audio)["VIDEO"]
