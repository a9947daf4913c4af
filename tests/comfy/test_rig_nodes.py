"""Rigs, parts, lengths and retargeting in a running ComfyUI. What they do to a motion is tested in tests/motion."""

import torch
from graphs import composed, node
from server import Server, on_one_version
from test_more_nodes import kept, motion_of, pictures, run_all
from test_nodes import probe, refusal

from imtalker import Rig
from imtalker.motion.editing import loop

SIZE = 8  # values of the tiny models' motion
RETARGETING = {"mode": "relative", "reference": "frame number", "frame": 3, "strength": 1.0}
READING = {"smirk": "none", "gaze": "none", "gaze_order": "as published", "filename_prefix": "people/anna"}
NO_PARTS = {"head": False, "mouth": False, "eyes": False, "brows": False, "rest": False, "share": 1.0}


def two_motions() -> dict:
    """motion, and other by another seed; a made-up rig, and 1 s of sound in 3 s of silence."""
    graph = composed()
    graph["other"] = node("IMTalkerSampleMotion", **(graph["motion"]["inputs"] | {"seed": 5}))
    return graph | {"rig": node("MadeUpRig", size=SIZE)}


def edited(server: Server, kind: str, graph: dict | None = None, **inputs) -> torch.Tensor:
    graph = (graph or two_motions()) | {"edited": node(kind, **inputs)}
    return motion_of(server, kept(graph, "edited")).latents


@on_one_version
def test_a_rig_from_the_models_is_made_once_stopped_at_will_and_refused_elsewhere(server: Server):
    def loaded(file, **generator):
        graph = {"rig": node("IMTalkerLoadRig", rig_file=file, **generator), **composed()}
        return graph | {"shown": node("PreviewAny", source=["rig", 1])}

    folder = server.base / "models/imtalker/rigs"
    own = {"generator": ["generator", 0]}
    assert server.run(loaded("from the models", **own), interrupt_at=10).of("execution_interrupted")
    assert not folder.exists()
    run = run_all(server, loaded("from the models", **own))
    assert max(message["value"] for message in run.of("progress")) == 100
    (file,) = folder.iterdir()
    made = Rig.load(file)
    assert run.outputs["shown"]["text"] == [made.describe()]
    assert [
        *server.get("/object_info/IMTalkerLoadRig")["IMTalkerLoadRig"]["input"]["required"]["rig_file"][1]["options"]
    ][2:] == [file.name]
    assert "rigs/" not in str(server.get("/object_info/IMTalkerLoadGenerator"))
    assert not run_all(server, loaded(file.name, **own)).of("progress")
    assert "needs a generator" in refusal(server, loaded("from the models"))
    assert "The rig has 16 values per frame but the generator has 8" in refusal(server, loaded("avatar", **own))
    graph = two_motions() | {"avatar": node("IMTalkerLoadRig", rig_file="avatar")}
    inputs = NO_PARTS | {"motion": ["motion", 0], "other": ["other", 0], "rig": ["avatar", 0], "mouth": True}
    graph |= {"edited": node("IMTalkerCombineParts", **inputs)}
    assert "The rig has 16 values per frame but the motion has 8" in refusal(server, kept(graph, "edited"))
    file.unlink()
    folder.rmdir()


@on_one_version
def test_parts_masks_and_the_silence_gate(server: Server):
    base, other = motion_of(server, kept(two_motions())), motion_of(server, kept(two_motions(), "other"))
    inputs = NO_PARTS | {"motion": ["motion", 0], "other": ["other", 0], "rig": ["rig", 0]}
    mouth = edited(server, "IMTalkerCombineParts", **(inputs | {"mouth": True}))
    wanted = base.latents.clone()
    wanted[:, 1] = other.latents[:, 1]
    torch.testing.assert_close(mouth, wanted)
    expression = NO_PARTS | {"mouth": True, "eyes": True, "brows": True, "rest": True}
    mask = two_motions() | {"mask": node("SolidMask", value=0.5, width=8, height=8)}
    half = edited(server, "IMTalkerCombineParts", mask, **(inputs | expression | {"mask": ["mask", 0]}))
    torch.testing.assert_close(half[:, 1:], (base.latents + other.latents)[:, 1:] / 2)
    assert torch.equal(half[:, 0], base.latents[:, 0])
    gate = {"motion": ["motion", 0], "rig": ["rig", 0], "audio": ["quiet", 0], "level": -40.0}
    quiet = two_motions() | {"quiet": node("MadeUpAudio", samples=16000, channels=1, rate=16000, value=0.0)}
    for where, rests in (("quiet", True), ("loud", False)):
        gated = edited(server, "IMTalkerSilenceGate", quiet, **gate, rest_where=where)
        assert torch.equal(gated[:, [0, *range(2, SIZE)]], base.latents[:, [0, *range(2, SIZE)]])
        assert torch.equal(gated[:, 1], torch.zeros(25) if rests else base.latents[:, 1])


@on_one_version
def test_a_motion_begins_in_the_portraits_pose_or_as_published(server: Server):
    base = motion_of(server, kept(two_motions())).latents
    inputs = RETARGETING | {"motion": ["motion", 0], "source": ["source", 0]}
    own = edited(server, "IMTalkerRetargetMotion", **(inputs | {"strength": 0.0}))[:1]
    moved = edited(server, "IMTalkerRetargetMotion", **inputs)
    torch.testing.assert_close(moved, own + base - base[3])
    assert torch.equal(edited(server, "IMTalkerRetargetMotion", **(inputs | {"mode": "absolute"})), base)
    graph = two_motions() | {"edited": node("IMTalkerRetargetMotion", **(inputs | {"frame": 25}))}
    assert "frames 0 to 24, not 25" in refusal(server, kept(graph, "edited"))


@on_one_version
def test_lengths_of_a_motion_images_and_a_video(server: Server):
    base = motion_of(server, kept(two_motions()))
    graph = two_motions() | {
        "long": node("LoadAudio", audio="long.wav"),
        "clip": node("LoadVideo", file="driving.mp4"),
        "frames": node("RepeatImageBatch", image=["image", 0], amount=2),
        "fit": node(
            "IMTalkerFitLength",
            way="loop",
            frames=0,
            fps=2.0,
            motion=["motion", 0],
            images=["frames", 0],
            video=["clip", 0],
            audio=["long", 0],
        ),
        "save": node("SaveVideo", video=["fit", 2], filename_prefix="fit", format="auto", codec="auto"),
        "shown": node("PreviewImage", images=["fit", 1]),
    }
    run = run_all(server, kept(graph, "fit"))
    file = probe(server, run.files("save")[0])
    assert (file["frames"], file["fps"]) == (8 * 24, 24)
    assert abs(file["seconds of sound"] - 8) < 0.1
    assert len(pictures(server, run, "shown")) == 16
    looped = loop(base).latents
    fitted = motion_of(server, kept(graph, "fit", "again")).latents
    torch.testing.assert_close(fitted, looped.repeat(200 // len(looped) + 1, 1)[:200])
    graph["fit"]["inputs"] = {"way": "hold", "frames": 0, "fps": 25.0, "motion": ["motion", 0]}
    graph["fit"]["inputs"]["frames"] = 9
    assert "Fit Length has no video to hand on: connect its input video" in server.run(graph).error
    graph["fit"]["inputs"]["frames"] = 0
    graph = {name: each for name, each in graph.items() if name not in ("save", "shown")}
    assert "connect audio, or set frames" in refusal(server, kept(graph, "fit"))
    graph["fit"]["inputs"] = {"way": "hold", "frames": 9, "fps": 25.0}
    assert "nothing to fit" in refusal(server, kept(graph, "fit"))


@on_one_version
def test_a_learned_rig_is_saved_and_loaded(server: Server):
    fitted = {"way": "ping-pong", "frames": 300, "fps": 25.0, "motion": ["motion", 0]}
    graph = composed() | {
        "long": node("IMTalkerFitLength", **fitted),
        "landmarks": node("MadeUpLandmarks", frames=300, height=96, width=96),
        "learned": node("IMTalkerLearnRig", motion=["long", 0], landmarks=["landmarks", 0], **READING),
        "shown": node("PreviewAny", source=["learned", 1]),
    }
    run = run_all(server, graph)
    file = server.base / "models/imtalker/rigs/people/anna_00001_.safetensors"
    learned = Rig.load(file)
    assert run.outputs["shown"]["text"] == [learned.describe()]
    assert {"yaw", "pitch", "roll"} <= set(learned.names)
    assert learned.weights.startswith("generator ")
    graph["landmarks"]["inputs"]["frames"] = 299
    assert "The motion has 300 frames but the readings 299" in refusal(server, graph)
    graph["learned"]["inputs"].pop("landmarks")
    assert "nothing to read with" in refusal(server, graph)
    graph["learned"]["inputs"] |= {"landmarks": ["landmarks", 0], "filename_prefix": "../../out"}
    graph["landmarks"]["inputs"]["frames"] = 300
    assert "leads out of" in refusal(server, graph)
    file.unlink()
    file.parent.rmdir()
    file.parent.parent.rmdir()
