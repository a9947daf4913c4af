"""What Talking Head does, in its steps."""

from . import parts

NAME = "02 Talk step by step"
MOMENTS = (1.0,)


def draw(graph):
    example = parts.example(graph)
    crop = parts.cropped(graph, example["image"])
    renderer, source = parts.portrait(graph, crop["image"])
    generator, features = parts.speech(graph, example["audio"])
    with graph.group("Motion", 800, 450):
        motion = parts.sampled(graph, generator, source, features)
    with graph.group("Render", 1200, 0):
        video = graph.add(
            "IMTalkerRenderVideo", renderer=renderer, source=source, motion=motion, audio=example["audio"]
        )
    parts.result(graph, video["video"], 1600)
    parts.note(
        graph,
        1220,
        690,
        700,
        "Press **Run**. Change a setting, and only that node and those after it run again.",
        "**Your own picture and voice:** add **Load Image** and **Load Audio** and connect them to Face Crop, Encode "
        "Audio and Render Video in place of Example.",
        parts.PEOPLE,
    )
