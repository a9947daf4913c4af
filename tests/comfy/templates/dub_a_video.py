"""A video that exists says something else."""

from server import ROOT

from . import parts

NAME = "11 Dub a video"
MOMENTS = (1.12, 3.04)
BESIDE = ROOT / "imtalker/avatar/driving.mp4"


def draw(graph):
    example = parts.example(graph)
    renderer, generator = parts.models(graph, 0, 340)
    with graph.group("Dub", 400, 0, 380):
        dub = graph.add(
            "IMTalkerDub",
            renderer=renderer,
            generator=generator,
            video=example["driving"],
            audio=example["answer"],
            cfg=parts.GUIDANCE,
        )
    save = parts.result(graph, dub["video"], 860)
    parts.note(
        graph,
        1260,
        0,
        420,
        "Press **Run**: the person in the driving video says the answer, in another voice. Only mouth and chin are "
        "drawn anew.",
        "**Your own:** connect **Load Video** and **Load Audio** to Dub in place of Example. "
        "Dub only people who have agreed to it.",
        parts.PEOPLE,
    )
    graph.offer([(example, "seed"), (dub, "seed")], save)
