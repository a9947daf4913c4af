"""A portrait and speech to a video, in one node."""

from . import parts

NAME = "01 First try"
MOMENTS = (0.5,)


def draw(graph):
    example = parts.example(graph)
    renderer, generator = parts.models(graph)
    with graph.group("Talk", 400, 0, 340):
        talk = graph.add(
            "IMTalkerTalkingHead",
            renderer=renderer,
            generator=generator,
            image=example["image"],
            audio=example["audio"],
            cfg=parts.GUIDANCE,
        )
    save = parts.result(graph, talk["video"], 840)
    parts.note(
        graph,
        1240,
        0,
        420,
        "Press **Run**: a drawn head speaks for four seconds. Nothing is downloaded. Run again for another take.",
        "**Your own picture and voice:** add **Load Image** and **Load Audio** and connect them to Talking Head in "
        "place of Example.",
        parts.PEOPLE,
    )
    graph.offer([(example, "seed"), (talk, "seed")], save)
