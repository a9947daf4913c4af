"""What several workflows have in common: the pack's own material and models, and the words of their notes."""

from building import Graph, Placed, Slot

AVATAR = {"model": "avatar"}
LETTER = 8.5  # pixels of a heading's letters, about
GUIDANCE = 1.0  # the cfg that the avatar was measured with
PEOPLE = (
    "**Real people:** choose **published** in both loaders (downloads 2.7 GB once) and set **cfg** to 0. The avatar "
    "only knows drawn heads."
)


def note(graph: Graph, x: int, y: int, width: int, *steps: str) -> None:
    """The steps that every workflow has: what Run does, how to use one's own files, how to show people. As headings:
    the page writes a note's ordinary text too small to be read where the whole graph is seen."""
    rows = sum(1 + int(len(step) * LETTER / (width - 60)) for step in steps)
    text = "\n".join(f"## {number}. {step}" for number, step in enumerate(steps, 1))
    graph.note(text, x, y, width, 50 + 21 * rows + 16 * len(steps))


def example(graph: Graph, after: str | None = None) -> Placed:
    with graph.group("Example", 0, 0):
        return graph.add("IMTalkerExample", after=after)


def cropped(graph: Graph, picture: Slot, **settings) -> Placed:
    with graph.group("Crop", 0, 360):
        return graph.add("IMTalkerFaceCrop", image=picture, **settings)


def portrait(graph: Graph, picture: Slot, y: int = 120, gap: int = 130) -> tuple[Slot, Slot]:
    """The avatar's renderer, and the portrait as it reads it."""
    with graph.group("Picture", 400, y):
        renderer = graph.add("IMTalkerLoadRenderer", **AVATAR)["renderer"]
        graph.skip(gap)
        return renderer, graph.add("IMTalkerEncodeSource", renderer=renderer, image=picture)["source"]


def speech(graph: Graph, sound: Slot, y: int = 650) -> tuple[Slot, Slot]:
    """The avatar's generator, and the speech as it hears it."""
    with graph.group("Sound", 400, y):
        generator = graph.add("IMTalkerLoadGenerator", **AVATAR)["generator"]
        heard = graph.add("IMTalkerEncodeAudio", generator=generator, audio=sound)
        return generator, heard["audio_features"]


def sampled(graph: Graph, generator: Slot, source: Slot, features: Slot, **others) -> Slot:
    """Speech to motion, as strongly guided as suits the avatar."""
    inputs = {"generator": generator, "source": source, "audio_features": features, "cfg": GUIDANCE}
    return graph.add("IMTalkerSampleMotion", **inputs | others)["motion"]


def models(graph: Graph, x: int = 0, y: int = 360) -> tuple[Slot, Slot]:
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
