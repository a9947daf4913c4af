"""A portrait waits, then speaks."""

from . import parts

NAME = "08 Idle, then talk"
MOMENTS = (0.5, 2.5, 3.1, 4.0)
WAIT = 2.0


def draw(graph):
    example = parts.example(graph)
    crop = parts.cropped(graph, example["image"])
    renderer, source = parts.portrait(graph, crop["image"])
    generator, features = parts.speech(graph, example["audio"])
    with graph.group("Motion", 800, 0):
        waiting = graph.add("IMTalkerIdleMotion", generator=generator, source=source, seconds=WAIT)
        speaking = parts.sampled(graph, generator, source, features)
    with graph.group("Join", 1200, 0):
        joined = graph.add("IMTalkerJoinMotion", motion_a=waiting["motion"], motion_b=speaking, crossfade=0.4)
    with graph.group("Sound of the video", 1200, 430):
        silence = graph.add("EmptyAudio", "Silence while it waits", duration=WAIT)
        sound = graph.add("AudioConcat", "Silence, then speech", audio1=silence["AUDIO"], audio2=example["audio"])
    with graph.group("Render", 1600, 0):
        video = graph.add(
            "IMTalkerRenderVideo", renderer=renderer, source=source, motion=joined["motion"], audio=sound["AUDIO"]
        )
    parts.result(graph, video["video"], 2000)
    parts.note(
        graph,
        1620,
        720,
        680,
        "Press **Run**: the portrait looks about for two seconds, then speaks. For another wait change **seconds** of "
        "Idle Motion and **duration** of the silence.",
        "**Your own picture and voice:** connect **Load Image** to Face Crop, and **Load Audio** wherever Example's "
        "audio goes.",
        parts.PEOPLE,
    )
