"""A long speech: each frame is pasted back and written to disk while the next one renders."""

from . import parts

NAME = "09 Long video"
MOMENTS = (0.6, 1.5)


def draw(graph):
    example = parts.example(graph)
    crop = parts.cropped(graph, example["two_people"], face="left to right", index=1)
    renderer, source = parts.portrait(graph, crop["image"])
    generator, features = parts.speech(graph, example["answer"])
    with graph.group("Motion", 800, 450):
        motion = parts.sampled(graph, generator, source, features)
    with graph.group("Render", 1200, 0):
        video = graph.add(
            "IMTalkerRenderVideo",
            renderer=renderer,
            source=source,
            motion=motion,
            audio=example["answer"],
            crop=crop["crop"],
            background=example["two_people"],
        )
    parts.result(graph, video["video"], 1600)
    parts.note(
        graph,
        1220,
        690,
        700,
        "Press **Run**: the right of two people speaks. Render Video pastes each frame back and writes it to disk, so "
        "an hour needs no more memory than a minute. Disconnect **crop** and **background** for the face alone.",
        "**Your own:** connect **Load Image** in place of two_people and **Load Audio** in place of answer. In Face "
        "Crop, **face** and **index** choose who speaks.",
        parts.PEOPLE,
    )
