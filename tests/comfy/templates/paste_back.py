"""A face of a larger picture speaks, and is pasted back into it."""

from . import parts

NAME = "03 Talk and paste back"
MOMENTS = (0.0, 0.5)


def draw(graph):
    example = parts.example(graph)
    renderer, generator = parts.models(graph)
    with graph.group("Encode", 400, 0):
        crop = graph.add("IMTalkerFaceCrop", image=example["two_people"], face="left to right")
        source = graph.add("IMTalkerEncodeSource", renderer=renderer, image=crop["image"])["source"]
        features = graph.add("IMTalkerEncodeAudio", generator=generator, audio=example["audio"])
    with graph.group("Motion", 800, 0):
        motion = graph.add(
            "IMTalkerSampleMotion",
            generator=generator,
            source=source,
            audio_features=features["audio_features"],
            cfg=parts.GUIDANCE,
        )
    with graph.group("Render", 1200, 0):
        frames = graph.add("IMTalkerRender", renderer=renderer, source=source, motion=motion["motion"])
        pasted = graph.add(
            "IMTalkerPasteBack", images=frames["images"], background=example["two_people"], crop=crop["crop"]
        )
        video = parts.create_video(graph, pasted["images"], frames["fps"], example["audio"])
    parts.result(graph, video, 1600)
    parts.note(
        graph,
        820,
        760,
        700,
        "Press **Run**: the left of two people speaks. Only the square around the face is rendered, then pasted back "
        "into the picture.",
        "**Your own:** connect **Load Image** to Face Crop and Paste Back, and **Load Audio** to Encode Audio and "
        "Create Video. In Face Crop, **face** and **index** choose who speaks.",
        parts.PEOPLE,
    )
