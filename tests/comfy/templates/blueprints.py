"""Subgraphs for the page's node library (subgraphs/*.json): one node for a whole way, models included.

The library shows the file's name. Each is drawn once and used by `python tests/comfy/build_workflows.py`.
"""

from . import parts

SEARCHED = ["lip sync", "talking head", "portrait", "speech", "avatar"]


def talk(graph):
    """A portrait speaks: picture and speech to a video of the face."""
    one = graph.subgraph("IMTalker Talk", image="IMAGE", audio="AUDIO", **MODELS, seed="INT", cfg="FLOAT")
    renderer, generator = _models(one)
    with one.group("Talk", 400, 0, 340):
        video = one.add(
            "IMTalkerTalkingHead",
            renderer=renderer,
            generator=generator,
            image=one["image"],
            audio=one["audio"],
            seed=one["seed"],
            cfg=one["cfg"],
        )
    one.output("video", video["video"])
    return one


def reenact(graph):
    """A portrait follows the face in a driving video, with its sound."""
    one = graph.subgraph("IMTalker Reenact", image="IMAGE", driving="VIDEO", renderer="COMBO")
    with one.group("Models", 0, 0):
        renderer = one.add("IMTalkerLoadRenderer", model=one["renderer"])["renderer"]
    with one.group("Crop", 400, 0):
        parted = one.add("GetVideoComponents", "Driving video", video=one["driving"])
        portrait = one.add("IMTalkerFaceCrop", "Portrait: Face Crop", image=one["image"])
        driving = one.add("IMTalkerFaceCrop", "Driving video: Face Crop", image=parted["images"])
    with one.group("Encode", 800, 0):
        source = one.add("IMTalkerEncodeSource", renderer=renderer, image=portrait["image"])["source"]
        motion = one.add("IMTalkerEncodeMotion", renderer=renderer, images=driving["image"], fps=parted["fps"])
    with one.group("Render", 1200, 0):
        video = one.add(
            "IMTalkerRenderVideo", renderer=renderer, source=source, motion=motion["motion"], audio=parted["audio"]
        )
    one.output("video", video["video"])
    return one


def talk_and_paste_back(graph):
    """A face of a picture speaks, and the video shows the whole picture."""
    one = graph.subgraph(
        "IMTalker Talk and paste back",
        **{"image": "IMAGE", "audio": "AUDIO"} | MODELS | {"index": "INT", "seed": "INT", "cfg": "FLOAT"},
    )
    renderer, generator = _models(one)
    with one.group("Encode", 400, 0):
        crop = one.add("IMTalkerFaceCrop", image=one["image"], index=one["index"])
        source = one.add("IMTalkerEncodeSource", renderer=renderer, image=crop["image"])["source"]
        features = one.add("IMTalkerEncodeAudio", generator=generator, audio=one["audio"])
    with one.group("Motion", 800, 0):
        motion = one.add(
            "IMTalkerSampleMotion",
            generator=generator,
            source=source,
            audio_features=features["audio_features"],
            seed=one["seed"],
            cfg=one["cfg"],
        )
    with one.group("Render", 1200, 0):
        video = one.add(
            "IMTalkerRenderVideo",
            renderer=renderer,
            source=source,
            motion=motion["motion"],
            audio=one["audio"],
            crop=crop["crop"],
            background=one["image"],
        )
    one.output("video", video["video"])
    return one


MODELS = {"renderer": "COMBO", "generator": "COMBO"}
BLUEPRINTS = {"IMTalker Talk": talk, "IMTalker Reenact": reenact, "IMTalker Talk and paste back": talk_and_paste_back}


def draw(graph, blueprint):
    """A graph of this subgraph alone, as the page saves a blueprint; returns its node."""
    subgraph = blueprint(graph)
    values = {"renderer": "avatar", "generator": "avatar", "cfg": parts.GUIDANCE}
    node = graph.add(subgraph, **{name: value for name, value in values.items() if name in subgraph.values})
    graph.extra = {"BlueprintDescription": blueprint.__doc__, "BlueprintSearchAliases": SEARCHED}
    return node


def _models(one):
    with one.group("Models", 0, 0):
        renderer = one.add("IMTalkerLoadRenderer", model=one["renderer"])
        generator = one.add("IMTalkerLoadGenerator", model=one["generator"])
    return renderer["renderer"], generator["generator"]
