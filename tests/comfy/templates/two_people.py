"""Two people of one picture in conversation: one subgraph, used twice."""

from . import parts

NAME = "07 Two people talk"
MOMENTS = (0.5, 5.0)


def person(graph):
    """A face of a picture that speaks in it: the picture, or the frames so far, with this face moving."""
    one = graph.subgraph(
        "One person speaks",
        renderer="IMTALKER_RENDERER",
        generator="IMTALKER_GENERATOR",
        picture="IMAGE",
        frames="IMAGE",
        audio="AUDIO",
        index="INT",
        seed="INT",
    )
    with one.group("Encode", 0, 0):
        crop = one.add("IMTalkerFaceCrop", image=one["picture"], face="left to right", index=one["index"])
        source = one.add("IMTalkerEncodeSource", renderer=one["renderer"], image=crop["image"])["source"]
        features = one.add("IMTalkerEncodeAudio", generator=one["generator"], audio=one["audio"])
    with one.group("Motion", 400, 0):
        motion = one.add(
            "IMTalkerSampleMotion",
            generator=one["generator"],
            source=source,
            audio_features=features["audio_features"],
            seed=one["seed"],
            cfg=parts.GUIDANCE,
        )
    with one.group("Paste back", 800, 0):
        moving = one.add("IMTalkerRender", renderer=one["renderer"], source=source, motion=motion["motion"])
        pasted = one.add("IMTalkerPasteBack", images=moving["images"], background=one["frames"], crop=crop["crop"])
    one.output("images", pasted["images"])
    one.output("fps", moving["fps"])
    return one


def draw(graph):
    example = parts.example(graph)
    renderer, generator = parts.models(graph, 800, 420)
    with graph.group("Sound", 400, 200):
        both = graph.add("AudioConcat", "Sound of the video", audio1=example["audio"], audio2=example["answer"])
        right_silent = graph.add("AudioAdjustVolume", "Right is silent", audio=example["answer"], volume=-100)
        left = graph.add(
            "AudioConcat", "Left speaks, then listens", audio1=example["audio"], audio2=right_silent["AUDIO"]
        )
        left_silent = graph.add("AudioAdjustVolume", "Left is silent", audio=example["audio"], volume=-100)
        right = graph.add(
            "AudioConcat", "Right listens, then speaks", audio1=left_silent["AUDIO"], audio2=example["answer"]
        )
    one = person(graph)
    models = {"renderer": renderer, "generator": generator, "picture": example["two_people"]}
    with graph.group("Left", 1200, 150):
        first = graph.add(one, "Left person", **models, frames=example["two_people"], audio=left["AUDIO"], index=0)
    with graph.group("Right", 1200, 500):
        second = graph.add(one, "Right person", **models, frames=first["images"], audio=right["AUDIO"], index=1, seed=1)
    with graph.group("Video", 1600, 0):
        video = parts.create_video(graph, second["images"], second["fps"], both["AUDIO"])
    parts.result(graph, video, 1600, 260)
    parts.note(
        graph,
        820,
        850,
        1100,
        "Press **Run**: the left person speaks, the right one answers. Both use one subgraph: open it to look inside.",
        "**Your own:** connect **Load Image** in place of two_people, and a **Load Audio** each in place of audio and "
        "answer. Keep it under a minute: all frames are in memory.",
        parts.PEOPLE,
    )
