"""A driving video moves the head, at its own pace and for as long as somebody speaks; the lips follow the speech."""

from . import parts

NAME = "12 Head from a video, lips from speech"
MOMENTS = (0.7, 2.6)


def draw(graph):
    example = parts.example(graph)
    crop = parts.cropped(graph, example["image"])
    renderer, source = parts.portrait(graph, crop["image"])
    generator, features = parts.speech(graph, example["audio"])
    with graph.group("Head from the driving video", 800, 0):
        driven = graph.add("IMTalkerEncodeMotion", renderer=renderer, video=example["driving"])["motion"]
        own = graph.add("IMTalkerRetargetMotion", motion=driven, source=source)["motion"]
        long = graph.add("IMTalkerFitLength", way="ping-pong", motion=own, audio=example["audio"])["motion"]
    with graph.group("Lips from the speech", 800, 1100):
        spoken = parts.sampled(graph, generator, source, features)
    with graph.group("Parts", 1200, 0):
        rig = graph.add("IMTalkerLoadRig", rig_file="from the models", generator=generator)["rig"]
        both = graph.add("IMTalkerCombineParts", motion=long, other=spoken, rig=rig)["motion"]
    with graph.group("Render", 1600, 0):
        video = graph.add("IMTalkerRenderVideo", renderer=renderer, source=source, motion=both, audio=example["audio"])
    parts.result(graph, video["video"], 2000)
    parts.note(
        graph,
        1620,
        690,
        700,
        "Press **Run**: the head moves as in the driving video, the lips as the speech wants. **Combine Parts** takes "
        "other parts too: eyes alone, or the whole expression without the head.",
        "**Your own:** connect **Load Image** to **Face Crop**, **Load Video** to **Encode Motion**, and **Load "
        "Audio** wherever Example's audio goes.",
        parts.PEOPLE + " The rig is made on the first run and kept.",
    )
