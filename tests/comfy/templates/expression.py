"""A smile, a surprise and blinks are added to the motion of speech."""

from . import parts

NAME = "10 Draw an expression"
MOMENTS = (0.8, 1.66, 2.3, 3.3)
KEYFRAMES = """{"version": 2, "channels": {
  "blink left": [[1.5, 0], [1.6, 1], [1.7, 1], [1.9, 0]],
  "blink right": [[1.5, 0], [1.6, 1], [1.7, 1], [1.9, 0]],
  "brows": [[1.9, 0], [2.1, 1], [2.6, 1], [2.9, -1], [3.6, -1], [3.9, 0]],
  "smile": [[0.2, 0], [0.6, 1], [1.2, 1], [1.6, 0], [2.7, 0], [3, -0.8], [3.6, -0.8], [3.9, 0]]}}"""


def draw(graph):
    example = parts.example(graph)
    crop = parts.cropped(graph, example["image"])
    renderer, source = parts.portrait(graph, crop["image"], gap=0)
    generator, features = parts.speech(graph, example["audio"], 480)
    with graph.group("Motion", 800, 300):
        motion = parts.sampled(graph, generator, source, features)
    with graph.group("Rig", 400, 880):
        rig = graph.add("IMTalkerLoadRig", rig_file="from the models", generator=generator)
    with graph.group("Expression", 1200, 380):
        expression = graph.add(
            "IMTalkerExpression", motion=motion, rig=rig["rig"], audio=example["audio"], keyframes=KEYFRAMES
        )
    with graph.group("Render", 1960, 0):
        video = graph.add(
            "IMTalkerRenderVideo",
            renderer=renderer,
            source=source,
            motion=expression["motion"],
            audio=example["audio"],
        )
    parts.result(graph, video["video"], 1960, 676)
    parts.note(
        graph,
        800,
        780,
        360,
        "Drag brows, eyelids and mouth and the keyframes, then press **Run**. **blinks** adds some by itself.",
        "**Your own:** connect **Load Image** to Face Crop, **Load Audio** wherever Example's audio goes.",
        "**Real people:** as in 01; blinks, brows and smile then need a rig from **Learn Rig**.",
    )
