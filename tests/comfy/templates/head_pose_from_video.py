"""Speech from an audio file, the head's pose from a video. Needs weights of other authors, so it is not among the
templates: docs/graphs."""

from . import parts

NAME = "Head pose from a video"
FOLDER = "docs/graphs"


def draw(graph):
    with graph.group("Pictures and sound", 0, 0):
        picture = graph.add("LoadImage", "Portrait", image="portrait.png")
        speech = graph.add("LoadAudio", "Speech", audio="speech.wav")["AUDIO"]
        driving = graph.add("LoadVideo", "Driving video", file="driving.mp4")
    with graph.group("Models", 400, 0):
        renderer = graph.add("IMTalkerLoadRenderer")["renderer"]
        generator = graph.add("IMTalkerLoadGenerator")["generator"]
    with graph.group("Encode", 800, 0):
        crop = graph.add("IMTalkerFaceCrop", image=picture["IMAGE"])
        source = graph.add("IMTalkerEncodeSource", renderer=renderer, image=crop["image"])["source"]
        features = graph.add("IMTalkerEncodeAudio", generator=generator, audio=speech)["audio_features"]
        control = graph.add("IMTalkerControlFromVideo", video=driving["VIDEO"], smirk="SMIRK_em1.pt")["control"]
    with graph.group("Motion", 1200, 0):
        motion = graph.add(
            "IMTalkerSampleMotion", generator=generator, source=source, audio_features=features, control=control
        )
    with graph.group("Render", 1600, 0):
        video = graph.add(
            "IMTalkerRenderVideo", renderer=renderer, source=source, motion=motion["motion"], audio=speech
        )
    with graph.group("Result", 2000, 0):
        graph.add("SaveVideo", video=video["video"], filename_prefix="video/IMTalker")
    parts.note(
        graph,
        1220,
        700,
        700,
        "Put SMIRK_em1.pt, from the authors of SMIRK, into models/imtalker and press R. For the eyes too, choose the "
        "L2CS-Net file in **gaze**.",
        "Choose a portrait, speech, and a video whose head to follow. The first run downloads the published weights "
        "(2.7 GB).",
        "The portrait speaks its own words and moves its head like the person in the video.",
    )
