"""The head pose follows keyframes while the portrait speaks."""

from . import parts

NAME = "05 Draw the head pose"
MOMENTS = (0.6, 1.2, 2.3, 3.2)
KEYFRAMES = """{"version": 2, "channels": {
  "yaw": [[0, 0], [0.6, 14], [1.6, 14], [2.3, -10], [3.4, 0]],
  "pitch": [[0, 0], [0.6, 3], [1.6, -2], [2.3, 4], [3.4, 0]],
  "roll": [[0, 0], [1.1, 5], [2.3, -4], [3.4, 0]]}}"""


def draw(graph, editor="IMTalkerPoseControl", keyframes=KEYFRAMES, drawn="the head"):
    example = parts.example(graph)
    crop = parts.cropped(graph, example["image"])
    renderer, source = parts.portrait(graph, crop["image"])
    generator, features = parts.speech(graph, example["audio"])
    with graph.group("Control", 800, 0):
        control = graph.add(editor, audio=example["audio"], keyframes=keyframes)["control"]
    with graph.group("Motion", 1560, 0):
        motion = parts.sampled(graph, generator, source, features, control=control)
    with graph.group("Render", 1960, 0):
        video = graph.add(
            "IMTalkerRenderVideo", renderer=renderer, source=source, motion=motion, audio=example["audio"]
        )
    parts.result(graph, video["video"], 1960, 560)
    parts.note(
        graph,
        820,
        660,
        660,
        f"Drag {drawn} and the keyframes, then press **Run**: your drawing steers {drawn} while the portrait speaks. "
        "The button with the question mark lists mouse and keys.",
        "**Your own picture and voice:** connect **Load Image** to Face Crop, and **Load Audio** wherever Example's "
        "audio goes.",
        parts.PEOPLE,
    )
