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
    renderer, source = parts.portrait(graph, crop["image"], gap=0)
    generator, features = parts.speech(graph, example["audio"], 480)
    with graph.group("Control", 800, 560):
        control = graph.add(editor, audio=example["audio"], keyframes=keyframes)["control"]
    with graph.group("Motion", 1560, 180):
        motion = parts.sampled(graph, generator, source, features, control=control)
    with graph.group("Render", 1960, 0):
        video = graph.add(
            "IMTalkerRenderVideo", renderer=renderer, source=source, motion=motion, audio=example["audio"]
        )
    parts.result(graph, video["video"], 1960, 676)
    parts.note(
        graph,
        1560,
        680,
        380,
        f"Drag {drawn} and the keyframes, then press **Run**.",
        "**Your own:** connect **Load Image** to Face Crop, **Load Audio** wherever Example's audio goes.",
        parts.PEOPLE,
    )
