"""A driving video moves the head, at its own pace and for as long as somebody speaks; the lips follow the speech."""

from server import ROOT

from . import parts

NAME = "12 Head from a video, lips from speech"
MOMENTS = (0.7, 2.6)
BESIDE = ROOT / "imtalker/avatar/driving.mp4"


def draw(graph):
    example = parts.example(graph)
    crop = parts.cropped(graph, example["image"])
    renderer, source = parts.portrait(graph, crop["image"])
    generator, features = parts.speech(graph, example["audio"])
    with graph.group("Speech", 800, 520):
        spoken = parts.sampled(graph, generator, source, features)
        rig = graph.add("IMTalkerLoadRig", rig_file="from the models", generator=generator)
    with graph.group("Driving video", 1200, 150):
        driven = graph.add("IMTalkerEncodeMotion", renderer=renderer, video=example["driving"])["motion"]
        own = graph.add("IMTalkerRetargetMotion", motion=driven, source=source)["motion"]
        long = graph.add("IMTalkerFitLength", way="ping-pong", motion=own, audio=example["audio"])["motion"]
    with graph.group("Parts", 1600, 300):
        both = graph.add("IMTalkerCombineParts", motion=long, other=spoken, rig=rig["rig"])
    with graph.group("Render", 2000, 0):
        video = graph.add(
            "IMTalkerRenderVideo", renderer=renderer, source=source, motion=both["motion"], audio=example["audio"]
        )
    parts.result(graph, video["video"], 2000, 676)
    parts.note(
        graph,
        1600,
        730,
        380,
        "Press **Run**: the head moves as in the driving video, the lips as the speech wants. **Combine Parts** takes "
        "other parts too.",
        "**Your own:** connect **Load Image** to Face Crop, **Load Video** to Encode Motion, **Load Audio** wherever "
        "Example's audio goes.",
        "**Real people:** choose **published** in both loaders, and set **cfg** to 0.",
    )
