"""Face crops pasted back, motions saved, edited and joined, and controls from files, in a running ComfyUI."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import composed, node, rendered
from PIL import Image
from server import Refusal, Run, Server, on_one_version
from test_nodes import OURS, probe, refusal

from imtalker import Control, Motion

WIDTH, HEIGHT = 160, 120  # of wide.png
FACE = (60, 30, 100, 80)  # x0, y0, x1, y1 of the white rectangle in face.png
CROP = {"face": "largest", "index": 0, "scale": 1.6, "tracking": "steady", "padding": "edge", "no_face": "error"}
PASTE = {"feather": 0.15, "shape": "ellipse", "colour_match": 0.0, "even_size": True}
EDIT = {"strength": 1.0, "smoothing": 0.0, "start": 0.0, "end": 0.0, "speed": 1.0}
EDIT |= {"reverse": False, "loop": False, "fps": 0.0}
IDLE = {"seconds": 1.2, "sway": 0.5, "loop": True, "seed": 0}
NO_FACE = "No face|face detector is missing"  # without or with a network, and a gradient has no face


def png(pixels: np.ndarray) -> bytes:
    Image.fromarray(pixels).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def white(x0: int, y0: int, x1: int, y1: int) -> bytes:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[y0:y1, x0:x1] = 255
    return png(pixels)


@pytest.fixture(scope="module", autouse=True)
def files(server):
    x0, y0, x1, y1 = FACE
    server.upload("face.png", white(*FACE))
    server.upload("face_moved.png", white(x0 + 8, y0 + 4, x1 + 8, y1 + 4))
    server.upload("nothing.png", white(0, 0, 0, 0))
    server.upload("odd.png", png(np.full((61, 81, 3), 90, np.uint8)))
    random = np.random.default_rng(0)
    np.save(buffer := io.BytesIO(), random.normal(0, 0.2, (20, 2)).astype(np.float32))
    server.upload("gaze.npy", buffer.getvalue())
    smirk = {"pose_params": torch.randn(30, 3) * 0.2, "cam": torch.randn(30, 3) * 0.2}
    torch.save(smirk, buffer := io.BytesIO())
    server.upload("smirk.pt", buffer.getvalue())
    torch.save({"something": torch.zeros(2)}, buffer := io.BytesIO())
    server.upload("no_smirk.pt", buffer.getvalue())
    Control(pose=torch.randn(60, 3) * 0.2, fps=50.0).save(server.base / "input/pose50.safetensors")


def mask(name: str = "face.png") -> dict:
    return {
        "mask image": node("LoadImage", image=name),
        "face mask": node("ImageToMask", image=["mask image", 0], channel="red"),
    }


def cropped(size: int = 64, image: str = "wide.png", **settings) -> dict:
    """An image and its crop around the white rectangle of face.png."""
    inputs = CROP | {"image": ["whole", 0], "size": size, "mask": ["face mask", 0]} | settings
    return {"whole": node("LoadImage", image=image), **mask(), "crop": node("IMTalkerFaceCrop", **inputs)}


def pasted(graph: dict, images: list, **settings) -> dict:
    inputs = PASTE | {"images": images, "background": ["whole", 0], "crop": ["crop", 1]} | settings
    return graph | {
        "paste": node("IMTalkerPasteBack", **inputs),
        "shade": node("MaskToImage", mask=["paste", 1]),
        "save": node("PreviewImage", images=["paste", 0]),
        "save shade": node("PreviewImage", images=["shade", 0]),
        "save whole": node("PreviewImage", images=["whole", 0]),
    }


def kept(graph: dict, motion: str = "motion", prefix: str = "kept") -> dict:
    return graph | {"keep": node("IMTalkerSaveMotion", motion=[motion, 0], filename_prefix=prefix)}


def pictures(server: Server, run: Run, name: str) -> np.ndarray:
    """The images that a PreviewImage node wrote, (N,H,W,3)."""
    files = [server.base / file["type"] / file["subfolder"] / file["filename"] for file in run.files(name)]
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]).astype(int)


def run_all(server: Server, graph: dict) -> Run:
    run = server.run(graph)
    assert run.succeeded, run.error
    return run


def motion_of(server: Server, graph: dict) -> Motion:
    (file,) = run_all(server, graph).files("keep")
    return Motion.load(server.base / "output" / file["subfolder"] / file["filename"])


def speech_and(edit: dict, seed: int = 0) -> dict:
    graph = {"motion": node("IMTalkerEditMotion", motion=["spoken", 0], **(EDIT | edit))}
    composition = composed(seed=seed)
    return composition | {"spoken": composition["motion"]} | graph


class TestFace:
    @on_one_version
    def test_crop_around_a_mask(self, server):
        graph = cropped(80) | {"out": node("PreviewImage", images=["crop", 0])}
        graph["in"] = node("PreviewImage", images=["whole", 0])
        run = run_all(server, graph)
        # the rectangle's centre is (80, 55) and its longer side 50, so the square is 80 from (40, 15): a plain copy
        assert np.abs(pictures(server, run, "out") - pictures(server, run, "in")[:, 15:95, 40:120]).max() <= 1

    @pytest.mark.parametrize("shape", ["ellipse", "square"])
    @on_one_version
    def test_pasting_into_a_bigger_picture_leaves_no_seam(self, server, shape):
        graph = composed() | cropped()
        graph["source"]["inputs"]["image"] = ["crop", 0]
        graph["render"] = node(
            "IMTalkerRender", renderer=["renderer", 0], source=["source", 0], motion=["motion", 0], batch_size=0
        )
        run = run_all(server, pasted(graph, ["render", 0], shape=shape))
        frames, shade, whole = (pictures(server, run, name) for name in ("save", "save shade", "save whole"))
        assert frames.shape == (25, HEIGHT, WIDTH, 3)
        y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
        u, v = np.abs(x + 0.5 - 80), np.abs(y + 0.5 - 55)
        outside = (np.hypot(u, v) if shape == "ellipse" else np.maximum(u, v)) >= 40
        assert (frames[:, outside] == whole[:, outside]).all()
        assert (shade[:, outside] == 0).all()
        assert shade[:, 55, 80].min() == 255
        # 12 pixels of feather at most 1.5 / 12 a pixel; it starts softly at the border
        steps = [np.abs(np.diff(shade[0, ..., 0], axis=axis)) for axis in (0, 1)]
        assert max(step.max() for step in steps) <= 0.13 * 255
        border = (np.hypot(u, v) if shape == "ellipse" else np.maximum(u, v)) >= 39
        assert shade[:, border].max() < 0.03 * 255
        assert (frames != whole).any()

        graph = pasted(graph, ["render", 0], shape=shape, feather=0.3)
        again = run_all(server, graph)
        assert again.executed == {"paste", "shade", "save", "save shade"}

    @on_one_version
    def test_an_untouched_crop_pasted_back_is_the_picture(self, server):
        graph = cropped(512, tracking="smooth")
        graph["whole one"] = graph["whole"]
        graph["whole"] = node("RepeatImageBatch", image=["whole one", 0], amount=2)
        graph["moved"] = node("LoadImage", image="face_moved.png")
        graph["both"] = node("ImageBatch", image1=["mask image", 0], image2=["moved", 0])
        graph["face mask"]["inputs"]["image"] = ["both", 0]
        run = run_all(server, pasted(graph, ["crop", 0], colour_match=0.5))
        frames, whole = pictures(server, run, "save"), pictures(server, run, "save whole")
        smooth_part = np.abs(np.diff(whole, axis=2)).max(axis=-1) < 9  # not where the colours wrap round
        assert len(frames) == 2
        assert np.abs(frames - whole)[:, :, 1:][smooth_part].max() <= 12
        shade = pictures(server, run, "save shade")
        assert (shade[0] != shade[1]).any()

    @on_one_version
    def test_the_mask_of_the_crop_and_even_sizes(self, server):
        graph = pasted(cropped(64, image="odd.png"), ["crop", 0], mask=["crop", 2])
        graph["face mask"] = node("SolidMask", value=1.0, width=40, height=40)  # of another size: the whole image
        run = run_all(server, graph)
        (picture,), (shade,) = (pictures(server, run, name) for name in ("save", "save shade"))
        assert picture.shape == shade.shape == (62, 82, 3)
        for whole in (picture, shade):  # as in a video, the last row and column are there twice
            assert (whole[-1] == whole[-2]).all()
            assert (whole[:, -1] == whole[:, -2]).all()
        graph["paste"]["inputs"]["even_size"] = False
        assert pictures(server, run_all(server, graph), "save").shape == (1, 61, 81, 3)

    @pytest.mark.parametrize("giver", ["PrimitiveBoundingBox", "MadeUpBox"])
    def test_a_box_of_another_node(self, server, giver):
        assert server.get("/object_info/IMTalkerFaceCrop")["IMTalkerFaceCrop"]["input"]["optional"]["box"][0] == (
            "BOUNDING_BOX,BBOX"
        )
        if giver not in server.get("/object_info"):
            pytest.skip("this ComfyUI has no node that gives a BOUNDING_BOX")
        graph = cropped(80) | {"out": node("PreviewImage", images=["crop", 0])}
        graph["box"] = node(giver, x=60, y=30, width=40, height=50)
        by_mask = pictures(server, run_all(server, graph), "out")
        graph["crop"]["inputs"]["box"] = ["box", 0]
        assert "not both" in refusal(server, graph)
        del graph["crop"]["inputs"]["mask"]
        assert (pictures(server, run_all(server, graph), "out") == by_mask).all()
        graph["box"]["inputs"]["x"] = 500
        assert "not in the picture of 160x120" in refusal(server, graph)

    @on_one_version
    def test_no_face(self, server):
        graph = cropped() | {"out": node("PreviewImage", images=["crop", 0])}
        graph["mask image"]["inputs"]["image"] = "nothing.png"
        assert "mask is empty" in refusal(server, graph)
        graph["crop"]["inputs"]["no_face"] = "whole picture"
        assert pictures(server, run_all(server, graph), "out").shape == (1, 64, 64, 3)
        # with or without a face detector: a gradient has no face
        del graph["crop"]["inputs"]["mask"]
        assert pictures(server, run_all(server, graph), "out").shape == (1, 64, 64, 3)
        graph["batch"] = node("RepeatImageBatch", image=["whole", 0], amount=3)
        graph["crop"]["inputs"]["image"] = ["batch", 0]
        assert pictures(server, run_all(server, graph), "out").shape == (3, 64, 64, 3)
        graph["crop"]["inputs"]["no_face"] = "error"
        assert re.search(NO_FACE, refusal(server, graph))
        graph["crop"]["inputs"]["image"] = ["whole", 0]
        assert re.search(NO_FACE, refusal(server, graph))

    @on_one_version
    def test_numbers_and_sizes_that_do_not_go_together(self, server):
        graph = cropped()
        graph["three"] = node("RepeatImageBatch", image=["crop", 0], amount=3)
        graph["two"] = node("RepeatImageBatch", image=["whole", 0], amount=2)
        graph = pasted(graph, ["three", 0], background=["two", 0])
        assert "background of Paste Back has 2 frames but 3 are needed" in refusal(server, graph)
        graph["two"]["inputs"]["amount"] = 5
        before = len(server.log())
        assert len(pictures(server, run_all(server, graph), "save")) == 3
        assert "has 5 frames but only 3 are needed" in server.log()[before:]
        graph["paste"]["inputs"]["background"] = ["mask image", 0]
        assert len(pictures(server, run_all(server, graph), "save")) == 3
        graph["other"] = node("LoadImage", image="odd.png")
        graph["paste"]["inputs"]["background"] = ["other", 0]
        assert "connect the image that was cropped" in refusal(server, graph)
        graph["paste"]["inputs"] |= {"background": ["whole", 0], "mask": ["empty", 0]}
        graph["empty"] = node("SolidMask", value=0.0, width=64, height=64)
        assert "nothing would be pasted" in refusal(server, graph)


class TestMotion:
    def test_saved_and_loaded_it_renders_the_same(self, server):
        run = run_all(server, kept(rendered(composed()), prefix="moves/wave"))
        (file,) = run.files("keep")
        assert re.fullmatch(r"wave_\d+_\.safetensors", file["filename"])
        name = f"moves/{file['filename']} [output]"
        options = server.get("/object_info/IMTalkerLoadMotion")["IMTalkerLoadMotion"]["input"]["required"]
        assert name in options["motion_file"][1]["options"]
        graph = rendered(composed()) | {"motion": node("IMTalkerLoadMotion", motion_file=name)}
        loaded = run_all(server, graph)
        assert "render" in loaded.executed
        assert probe(server, loaded.files("save")[0])["frames"] == 25
        first = Motion.load(server.base / "output/moves" / file["filename"])
        assert torch.equal(motion_of(server, kept(graph)).latents, first.latents)
        # a new file under the same name
        Motion(first.latents[:10]).save(server.base / "output/moves" / file["filename"])
        assert probe(server, run_all(server, graph).files("save")[0])["frames"] == 10

    @on_one_version
    def test_edits(self, server):
        plain = motion_of(server, kept(composed()))
        assert torch.equal(motion_of(server, kept(speech_and({}))).latents, plain.latents)
        edited = motion_of(server, kept(speech_and({"reverse": True, "start": 0.2, "end": 0.8})))
        assert torch.equal(edited.latents, plain.latents[5:20].flip(0))
        assert len(motion_of(server, kept(speech_and({"speed": 2.0})))) == 13
        faster = motion_of(server, kept(speech_and({"fps": 50.0, "smoothing": 0.2, "loop": True})))
        assert faster.fps == 50
        assert 20 <= len(faster) < 50

    @on_one_version
    def test_strength_acts_around_the_source_or_the_mean(self, server):
        plain = motion_of(server, kept(composed())).latents
        around_mean = motion_of(server, kept(speech_and({"strength": 0.0}))).latents
        assert torch.allclose(around_mean, plain.mean(0).expand(25, -1), atol=1e-5)
        around_source = motion_of(server, kept(speech_and({"strength": 0.0, "source": ["source", 0]}))).latents
        assert torch.equal(around_source, around_source[:1].expand(25, -1))
        assert not torch.allclose(around_source, around_mean, atol=1e-4)

    @on_one_version
    def test_joining(self, server):
        graph = composed(seed=0) | {"other": composed(seed=1)["motion"]}
        graph["joined"] = node(
            "IMTalkerJoinMotion",
            motion_a=["motion", 0],
            motion_b=["other", 0],
            mode="one after the other",
            crossfade=0.4,
            share=0.25,
        )
        assert len(motion_of(server, kept(graph, "joined"))) == 50
        graph["joined"]["inputs"]["transition"] = "crossfade"
        assert len(motion_of(server, kept(graph, "joined"))) == 40
        graph["joined"]["inputs"] |= {"motion_c": ["motion", 0], "motion_d": ["other", 0], "crossfade": 0.0}
        assert len(motion_of(server, kept(graph, "joined"))) == 100
        graph["joined"]["inputs"]["mode"] = "mix"
        assert "motion_a and motion_b only" in refusal(server, kept(graph, "joined"))
        del graph["joined"]["inputs"]["motion_c"], graph["joined"]["inputs"]["motion_d"]
        a, b, mixed = (motion_of(server, kept(graph, name)).latents for name in ("motion", "other", "joined"))
        assert torch.allclose(mixed, 0.75 * a + 0.25 * b, atol=1e-5)
        graph["joined"]["inputs"]["mask"] = ["curve", 0]
        graph["curve"] = node("SolidMask", value=0.5, width=8, height=8)
        masked = motion_of(server, kept(graph, "joined")).latents
        assert torch.allclose(masked, 0.875 * a + 0.125 * b, atol=1e-5)

    @on_one_version
    def test_idle_motion_is_a_loop_and_joins_speech(self, server):
        inputs = {"generator": ["generator", 0], "source": ["source", 0]} | IDLE
        graph = composed() | {"idle": node("IMTalkerIdleMotion", **inputs)}
        looped = motion_of(server, kept(graph, "idle"))
        assert (len(looped), looped.fps, looped.generation) == (30, 25.0, "v2")
        assert torch.equal(motion_of(server, kept(graph, "idle")).latents, looped.latents)
        for change in ({"seed": 1}, {"sway": 1.0}, {"loop": False}, {"control": ["turn", 0]}):
            turn = '{"version": 1, "channels": {"yaw": [[0, 20]]}}'
            settings = {"keyframes": turn, "seconds": 0.0, "strength": 1.0, "allow_more": False}
            changed = graph | {"turn": node("IMTalkerPoseControl", **settings)}
            changed["idle"] = node("IMTalkerIdleMotion", **(inputs | change))
            run = run_all(server, kept(changed, "idle"))
            assert run.of("progress")[-1]["value"] == run.of("progress")[-1]["max"], change
            other = motion_of(server, kept(changed, "idle"))
            assert len(other) == 30
            assert not torch.allclose(other.latents, looped.latents, atol=1e-4), change
        join = {"mode": "one after the other", "crossfade": 0.4, "share": 0.5}
        graph["joined"] = node("IMTalkerJoinMotion", motion_a=["idle", 0], motion_b=["motion", 0], **join)
        joined = motion_of(server, kept(graph, "joined")).latents
        assert len(joined) == 30 + 25
        assert torch.equal(joined[:30], looped.latents)

    def test_an_idle_motion_out_of_range_is_refused(self, server):
        inputs = {"generator": ["generator", 0], "source": ["source", 0]} | IDLE
        for change in ({"seconds": 0.1}, {"seconds": 601.0}, {"sway": 2.0}):
            with pytest.raises(Refusal, match=r"value_(smaller|bigger)|maller than min|igger than max"):
                server.run(kept(composed() | {"motion": node("IMTalkerIdleMotion", **(inputs | change))}))
        graph = composed(image="square.png", renderer="renderer_v1.safetensors")
        graph["motion"] = node("IMTalkerIdleMotion", **inputs)
        assert re.search("v2 .* v1", refusal(server, kept(graph)))

    @on_one_version
    def test_what_cannot_be(self, server):
        assert "1.00 s long" in refusal(server, kept(speech_and({"start": 3.0})))
        graph = speech_and({"strength": 0.5, "source": ["other", 0]})
        graph["v1"] = node("IMTalkerLoadRenderer", model="renderer_v1.safetensors", precision="auto")
        graph["other"] = node("IMTalkerEncodeSource", renderer=["v1", 0], image=["image", 0])
        assert re.search("v1 .* v2", refusal(server, kept(graph)))
        graph = composed() | {"made up": node("MadeUpMotion", frames=5, size=3)}
        join = {"motion_a": ["motion", 0], "motion_b": ["made up", 0], "mode": "mix", "crossfade": 0.0, "share": 0.5}
        graph["joined"] = node("IMTalkerJoinMotion", **join)
        assert "made with the same models" in refusal(server, kept(graph, "joined"))

    @on_one_version
    def test_names_that_no_list_would_show(self, server):
        for prefix in ("", ".", "a/..", ".hidden", ".folder/x"):
            assert "without a dot in front" in refusal(server, kept(composed(), prefix=prefix))

    @pytest.mark.parametrize("prefix", ["../escaped", "/tmp/escaped", "a/../../escaped"])
    def test_saving_stays_in_output(self, server, prefix):
        assert "leads out of ComfyUI's folders" in refusal(server, kept(composed(), prefix=prefix))
        assert not list(server.base.rglob("escaped*"))
        assert not list(Path("/tmp").glob("escaped*"))

    @pytest.mark.parametrize(
        "name", ["../models/imtalker/renderer_v2.safetensors", "/etc/passwd", "../log.txt [output]", "gone.safetensors"]
    )
    def test_loading_stays_in_input_and_output(self, server, name):
        graph = kept({"motion": node("IMTalkerLoadMotion", motion_file=name)})
        with pytest.raises(Refusal) as refused:
            server.run(graph)
        assert re.search("leads out of ComfyUI's folders|There is no file", str(refused.value))

    @on_one_version
    def test_a_file_of_another_kind(self, server):
        graph = kept({"motion": node("IMTalkerLoadMotion", motion_file="pose50.safetensors")})
        assert "holds control, not motion" in refusal(server, graph)


class TestControl:
    def controlled(self, **settings) -> dict:
        inputs = {"pose": "none", "gaze": "none", "fps": 25.0, "gaze_order": "as published"} | settings
        graph = composed() | {"control": node("IMTalkerLoadControl", **inputs)}
        graph["motion"]["inputs"]["control"] = ["control", 0]
        return kept(graph)

    @on_one_version
    def test_each_file_steers_the_motion(self, server):
        motions = [
            motion_of(server, graph).latents
            for graph in (
                kept(composed()),
                self.controlled(pose="smirk.pt"),
                self.controlled(gaze="gaze.npy"),
                self.controlled(gaze="gaze.npy", gaze_order="swapped"),
                self.controlled(gaze="gaze.npy", fps=50.0),
                self.controlled(pose="smirk.pt", gaze="gaze.npy"),
                self.controlled(pose="pose50.safetensors"),
            )
        ]
        for number, one in enumerate(motions):
            assert not any(torch.equal(one, other) for other in motions[:number]), number

    @on_one_version
    def test_chained_is_as_good_as_at_once(self, server):
        at_once = motion_of(server, self.controlled(pose="smirk.pt", gaze="gaze.npy"))
        graph = self.controlled(gaze="gaze.npy", control=["first", 0])
        graph["first"] = self.controlled(pose="smirk.pt")["control"]
        assert torch.equal(motion_of(server, graph).latents, at_once.latents)
        graph["first"]["inputs"]["gaze"] = "none"
        graph["control"]["inputs"] |= {"pose": "smirk.pt"}
        graph["first"]["inputs"] |= {"pose": "pose50.safetensors"}
        # the frame rates differ, so the slower control is resampled: equal except for interpolation
        assert torch.allclose(motion_of(server, graph).latents, at_once.latents, atol=1e-3)

    def test_what_cannot_be(self, server):
        assert "nothing to load" in refusal(server, self.controlled())
        assert "neither 'pose_params' nor 'cam'" in refusal(server, self.controlled(pose="no_smirk.pt"))
        for pose in ("../models/imtalker/renderer_v2.safetensors", "/etc/passwd", "gone.pt"):
            with pytest.raises(Refusal, match=r"leads out of ComfyUI's folders|There is no file"):
                server.run(self.controlled(pose=pose))
        with pytest.raises(Refusal, match="leads out"):
            server.run(self.controlled(gaze="../../gaze.npy"))


class TestSchema:
    def test_the_order_that_saved_graphs_hold(self, server):
        info = server.get("/object_info")
        orders = {
            "IMTalkerFaceCrop": "image face index scale tracking padding no_face size mask box box_order",
            "IMTalkerPasteBack": "images background crop feather shape colour_match even_size mask seam",
            "IMTalkerTalkingHead": "renderer generator image audio seed steps cfg crop scale no_face mark control "
            "paste_back",
            "IMTalkerLoadControl": "pose gaze fps gaze_order control",
            "IMTalkerIdleMotion": "generator source seconds sway loop seed control",
            "IMTalkerSaveMotion": "motion filename_prefix",
            "IMTalkerLoadMotion": "motion_file",
            "IMTalkerEditMotion": "motion strength smoothing start end speed reverse loop fps source",
            "IMTalkerRetargetMotion": "motion source mode reference frame strength",
            "IMTalkerFitLength": "way frames fps motion images video audio",
            "IMTalkerCombineParts": "motion other rig head mouth eyes brows rest share mask",
            "IMTalkerSilenceGate": "motion rig audio rest_where level source",
            "IMTalkerLoadRig": "rig_file generator",
            "IMTalkerLearnRig": "motion filename_prefix smirk gaze gaze_order landmarks images video",
            "IMTalkerJoinMotion": "motion_a motion_b mode crossfade share motion_c motion_d mask transition",
        }
        for name, order in orders.items():
            assert info[name]["python_module"] == OURS
            parts = info[name]["input_order"]
            assert [*parts["required"], *parts.get("optional", [])] == order.split(), name
            assert all(info[name]["output_name"]), name
            assert all(info[name]["output_tooltips"]), name
        json.dumps(info)
