"""A driving video moves the head, at its own pace and for as long as somebody speaks; the lips follow the speech."""

from . import parts

NAME = "12 Head from a video, lips from speech"
MOMENTS = (0.7, 2.6)


def draw(graph):
    example = parts.example(graph)
    renderer, generator = parts.models(graph)
    with graph.group("Portrait", 400, 0):
        portrait = graph.add("IMTalkerFaceCrop", "Portrait: Face Crop", image=example["image"])
        source = graph.add("IMTalkerEncodeSource", renderer=renderer, image=portrait["image"])["source"]
    with graph.group("Driving video", 400, 640):
        driven = graph.add("IMTalkerEncodeMotion", renderer=renderer, video=example["driving"])["motion"]
        own = graph.add("IMTalkerRetargetMotion", motion=driven, source=source)["motion"]
        long = graph.add("IMTalkerFitLength", way="ping-pong", motion=own, audio=example["audio"])["motion"]
    with graph.group("Speech", 800, 0):
        features = graph.add("IMTalkerEncodeAudio", generator=generator, audio=example["audio"])
        spoken = graph.add(
            "IMTalkerSampleMotion",
            generator=generator,
            source=source,
            audio_features=features["audio_features"],
            cfg=parts.GUIDANCE,
        )
    with graph.group("Parts", 1200, 0):
        rig = graph.add("IMTalkerLoadRig", rig_file="from the models", generator=generator)
        both = graph.add("IMTalkerCombineParts", motion=long, other=spoken["motion"], rig=rig["rig"])
    with graph.group("Render", 1600, 0):
        video = graph.add(
            "IMTalkerRenderVideo", renderer=renderer, source=source, motion=both["motion"], audio=example["audio"]
        )
    parts.result(graph, video["video"], 2000)
    parts.note(
        graph,
        820,
        700,
        660,
        "Press **Run**: the head moves as in the driving video, the lips as the speech wants. **Combine Parts** takes "
        "other parts too: eyes alone, or the whole expression without the head.",
        "**Your own:** connect **Load Image** to the portrait's Face Crop, **Load Video** to Encode Motion, and **Load "
        "Audio** wherever Example's audio goes.",
        parts.PEOPLE + " The rig is made on the first run and kept.",
    )
