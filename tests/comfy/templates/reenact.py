"""A portrait follows the face in a driving video."""

from server import ROOT

from . import parts

NAME = "04 Reenact a portrait"
MOMENTS = (0.9, 3.2)
BESIDE = ROOT / "imtalker/avatar/driving.mp4"


def draw(graph):
    example = parts.example(graph, after="increment")
    crop = parts.cropped(graph, example["image"])
    renderer, source = parts.portrait(graph, crop["image"])
    with graph.group("Driving video", 800, 0):
        parted = graph.add("GetVideoComponents", "Driving video", video=example["driving"])
        driving = graph.add("IMTalkerFaceCrop", "Driving video: Face Crop", image=parted["images"])
        motion = graph.add("IMTalkerEncodeMotion", renderer=renderer, images=driving["image"], fps=parted["fps"])
    with graph.group("Render", 1200, 0):
        video = graph.add(
            "IMTalkerRenderVideo", renderer=renderer, source=source, motion=motion["motion"], audio=parted["audio"]
        )
    save = parts.result(graph, video["video"], 1600)
    parts.note(
        graph,
        1220,
        690,
        700,
        "Press **Run**: the portrait moves and speaks as the person in the driving video does. Run again for another "
        "portrait.",
        "**Your own:** connect **Load Image** to **Face Crop**, and **Load Video** to the node called "
        "Driving video, in place of Example.",
        "**Real people:** choose **published** in Load IMTalker Renderer (downloads 2.1 GB once). The avatar only "
        "knows drawn heads.",
    )
    graph.offer([(example, "seed")], save)
