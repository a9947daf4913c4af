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
    renderer, generator = parts.models(graph)
    with graph.group("Encode", 400, 0):
        crop = graph.add("IMTalkerFaceCrop", image=example["image"])
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
    with graph.group("Expression", 1200, 0):
        rig = graph.add("IMTalkerLoadRig", rig_file="from the models", generator=generator)
        expression = graph.add(
            "IMTalkerExpression", motion=motion["motion"], rig=rig["rig"], audio=example["audio"], keyframes=KEYFRAMES
        )
    with graph.group("Render", 1960, 0):
        video = graph.add(
            "IMTalkerRenderVideo",
            renderer=renderer,
            source=source,
            motion=expression["motion"],
            audio=example["audio"],
        )
    parts.result(graph, video["video"], 2360)
    parts.note(
        graph,
        820,
        660,
        640,
        "Drag brows, eyelids and mouth and the keyframes, then press **Run**: your drawing is added to the speech. "
        "**blinks** adds some by itself.",
        "**Your own picture and voice:** connect **Load Image** to Face Crop, and **Load Audio** wherever Example's "
        "audio goes.",
        parts.PEOPLE + " Blinks, brows and smile of people need a rig from **Learn Rig**.",
    )
