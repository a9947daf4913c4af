"""A face of a larger picture speaks, and is pasted back into it."""

from . import parts

NAME = "03 Talk and paste back"
MOMENTS = (0.0, 0.5)


def draw(graph):
    example = parts.example(graph)
    crop = parts.cropped(graph, example["two_people"], face="left to right")
    renderer, source = parts.portrait(graph, crop["image"], 240, 10)
    generator, features = parts.speech(graph, example["audio"])
    with graph.group("Motion", 800, 500):
        motion = parts.sampled(graph, generator, source, features)
    with graph.group("Render", 1200, 400):
        frames = graph.add("IMTalkerRender", renderer=renderer, source=source, motion=motion)
    with graph.group("Paste back", 1600, 120):
        pasted = graph.add(
            "IMTalkerPasteBack", images=frames["images"], background=example["two_people"], crop=crop["crop"]
        )
    with graph.group("Result", 2000, 0):
        video = parts.create_video(graph, pasted["images"], frames["fps"], example["audio"])
        graph.add("SaveVideo", video=video, filename_prefix="video/IMTalker")
    parts.note(
        graph,
        1580,
        760,
        720,
        "Press **Run**: the left of two people speaks. Only the square around the face is rendered, then pasted back "
        "into the picture.",
        "**Your own:** connect **Load Image** to Face Crop and Paste Back, and **Load Audio** to Encode Audio and "
        "Create Video. In Face Crop, **face** and **index** choose who speaks.",
        parts.PEOPLE,
    )
