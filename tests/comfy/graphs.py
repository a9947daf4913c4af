"""Graphs for the tests, in API format."""


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def loaders(renderer: str = "renderer_v2.safetensors", generator: str = "generator_v2.safetensors") -> dict:
    return {
        "renderer": node("IMTalkerLoadRenderer", model=renderer, precision="auto"),
        "generator": node("IMTalkerLoadGenerator", model=generator, wav2vec2="auto", precision="auto"),
    }


def composed(image: str = "square.png", audio: str = "speech.wav", seed: int = 0, **models) -> dict:
    """A graph from an image and speech to motion."""
    return {
        **loaders(**models),
        "image": node("LoadImage", image=image),
        "audio": node("LoadAudio", audio=audio),
        "source": node("IMTalkerEncodeSource", renderer=["renderer", 0], image=["image", 0]),
        "features": node("IMTalkerEncodeAudio", generator=["generator", 0], audio=["audio", 0]),
        "motion": node(
            "IMTalkerSampleMotion",
            generator=["generator", 0],
            source=["source", 0],
            audio_features=["features", 0],
            seed=seed,
            steps=3,
            cfg=0.0,
            control_end="hold",
        ),
    }


def rendered(graph: dict, batch_size: int = 0, **inputs) -> dict:
    """A graph with motion, extended to a video file."""
    values = {"batch_size": batch_size, "fps": 0.0, "quality": 18, "audio": ["audio", 0]} | inputs
    return {
        **graph,
        "render": node(
            "IMTalkerRenderVideo", renderer=["renderer", 0], source=["source", 0], motion=["motion", 0], **values
        ),
        "save": saved(["render", 0]),
    }


def saved(video: list) -> dict:
    return node("SaveVideo", video=video, filename_prefix="video/test", format="auto", codec="auto")


def talking_head(image: str = "wide.png", crop: str = "none", no_face: str = "error", **models) -> dict:
    return {
        **loaders(**models),
        "image": node("LoadImage", image=image),
        "audio": node("LoadAudio", audio="speech.wav"),
        "talk": node(
            "IMTalkerTalkingHead",
            renderer=["renderer", 0],
            generator=["generator", 0],
            image=["image", 0],
            audio=["audio", 0],
            seed=1,
            steps=3,
            cfg=0.0,
            crop=crop,
            scale=1.6,
            no_face=no_face,
        ),
        "save": saved(["talk", 0]),
        "preview": node("PreviewImage", images=["talk", 1]),
    }
