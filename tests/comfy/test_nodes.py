"""Every node through the HTTP API of a running ComfyUI."""

import io
import re
import time

import av
import pytest
from graphs import composed, node, rendered, saved, talking_head
from PIL import Image
from server import Refusal, Server, on_one_version

PUBLISHED = "published (downloaded on first use)"
OURS = "custom_nodes.ComfyUI-IMTalker"


def probe(server: Server, file: dict) -> dict:
    """Frames, size, rate, samples and tags of a video file."""
    with av.open(server.base / file["type"] / file["subfolder"] / file["filename"]) as container:
        stream = container.streams.video[0]
        found = {
            "size": (stream.width, stream.height),
            "fps": float(stream.average_rate),
            "frames": sum(1 for _ in container.decode(stream)),
            "tags": dict(container.metadata),
            "seconds of sound": 0,
        }
        if container.streams.audio:
            container.seek(0)
            found["seconds of sound"] = sum(f.samples / f.sample_rate for f in container.decode(audio=0))
        return found


def refusal(server: Server, graph: dict) -> str:
    """Runs a graph that must fail with one of our messages and no traceback; returns the message."""
    before = len(server.log())
    run = server.run(graph)
    assert run.error, run.messages
    assert "Traceback" not in server.log()[before:]
    assert run.of("execution_error")[0]["exception_type"] == "imtalker.Refused"
    return run.error


def temporary_videos(server: Server) -> set[str]:
    return {path.name for path in (server.base / "temp").rglob("*.mp4")}


def test_every_input_and_output_is_explained(server):
    kinds = {name: kind for name, kind in server.get("/object_info").items() if kind["python_module"] == OURS}
    assert kinds.keys() >= {
        "IMTalkerLoadRenderer",
        "IMTalkerLoadGenerator",
        "IMTalkerEncodeSource",
        "IMTalkerEncodeAudio",
        "IMTalkerEncodeMotion",
        "IMTalkerSampleMotion",
        "IMTalkerRender",
        "IMTalkerRenderVideo",
        "IMTalkerTalkingHead",
    }
    for name, kind in kinds.items():
        assert kind["description"], name
        assert kind["category"].split("/")[0] == "IMTalker", name
        for part in ("required", "optional"):
            for key, (_, options) in kind["input"].get(part, {}).items():
                assert options.get("tooltip"), (name, key)
        assert all(kind["output_tooltips"]), name


def test_composed_graph_writes_a_video(server):
    run = server.run(rendered(composed()))
    assert run.succeeded, run.error
    (file,) = run.files("save")
    found = probe(server, file)
    assert (found["frames"], found["size"], found["fps"]) == (25, (64, 64), 25)
    assert found["seconds of sound"] == pytest.approx(1, abs=0.1)
    assert "Synthetic video made with IMTalker" in found["tags"]["comment"]
    assert "IMTalkerRenderVideo" in found["tags"]["prompt"]
    assert run.previews


def test_an_encoding_of_another_kind_keeps_the_tag(server):
    graph = rendered(composed())
    formats = server.get("/object_info/SaveVideo")["SaveVideo"]["input"]["required"]["format"][1]["options"]
    if not any(isinstance(one, dict) and one["key"] == "webm" for one in formats):
        pytest.skip("this ComfyUI's Save Video only copies")
    # as the page sends a choice within a choice
    graph["save"]["inputs"] |= {"format": "webm", "format.codec": "av1", "codec": "auto"}
    run = server.run(graph)
    assert run.succeeded, run.error
    tags = {key.lower(): text for key, text in probe(server, run.files("save")[0])["tags"].items()}
    assert "Synthetic video made with IMTalker" in tags["comment"]
    assert "IMTalkerRenderVideo" in tags["prompt"]


@pytest.mark.parametrize("name", ["render", "talk"])
@on_one_version
def test_a_mark_is_written_into_the_corner(server, name):
    graph = rendered(composed()) if name == "render" else talking_head()
    video, pictures = graph[name], []
    for text in (None, "", "AI-generated"):  # older graphs do not name the input
        video["inputs"] |= {} if text is None else {"mark": text}
        run = server.run(graph)
        assert run.succeeded, run.error
        file = run.files("save")[0]
        with av.open(server.base / file["type"] / file["subfolder"] / file["filename"]) as container:
            pictures.append(next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int))
    assert (pictures[0] == pictures[1]).all()
    change = abs(pictures[2] - pictures[1]).mean(-1)
    assert change[-4:, -24:].mean() > 10
    assert change[:40].mean() < 1
    video["inputs"]["mark"] = "\u0007"
    assert "not a letter" in refusal(server, graph)


def test_another_seed_starts_again_at_sample_motion(server):
    server.run(rendered(composed(seed=1)))
    run = server.run(rendered(composed(seed=2)))
    assert run.succeeded
    assert run.executed == {"motion", "render", "save"}


@on_one_version
def test_the_avatar_comes_with_the_pack(server):
    run = server.run(rendered(composed(renderer="avatar", generator="avatar")))
    assert run.succeeded, run.error
    assert probe(server, run.files("save")[0])["size"] == (128, 128)
    mixed = refusal(server, rendered(composed(generator="avatar")))
    assert "belong together" in mixed
    # before anything is downloaded, which would fail here: the tests are offline
    for models in ({"renderer": "avatar", "generator": PUBLISHED}, {"renderer": PUBLISHED, "generator": "avatar"}):
        assert "set model to the same choice in both loaders" in refusal(server, rendered(composed(**models)))


@on_one_version
def test_a_loader_lists_files_of_its_kind(server):
    def listed(kind: str) -> set[str]:
        return set(server.get(f"/object_info/{kind}")[kind]["input"]["required"]["model"][1]["options"])

    renderers, generators = listed("IMTalkerLoadRenderer"), listed("IMTalkerLoadGenerator")
    assert renderers & generators == {PUBLISHED, "avatar"}
    assert renderers >= {"renderer_v1.safetensors", "renderer_v2.safetensors", "truncated.safetensors"}
    assert generators >= {"generator_v1.safetensors", "generator_v2.safetensors", "split.safetensors"}


@on_one_version
def test_other_frame_rate_and_batch_size(server):
    run = server.run(rendered(composed(), batch_size=5, fps=12.5, quality=30))
    found = probe(server, run.files("save")[0])
    assert (found["frames"], found["fps"]) == (13, 12.5)


@on_one_version
def test_paste_back_while_rendering(server):
    crop = {"crop": node("MadeUpCrop", x=20.0, y=10.0, size=100.0, height=120, width=160)}
    background = {"whole": node("LoadImage", image="wide.png")}
    graph = rendered(composed(), crop=["crop", 0], background=["whole", 0]) | crop | background
    run = server.run(graph)
    assert probe(server, run.files("save")[0])["size"] == (160, 120)
    preview = Image.open(io.BytesIO(run.previews[-1]))
    assert preview.size == (160, 120)  # the whole image, as in the video
    del graph["render"]["inputs"]["crop"]
    assert "together" in refusal(server, graph)
    graph["render"]["inputs"] |= {"crop": ["crop", 0], "background": ["image", 0]}
    assert "160x120" in refusal(server, graph)


def test_render_to_images(server):
    graph = composed() | {
        "render": node(
            "IMTalkerRender", renderer=["renderer", 0], source=["source", 0], motion=["motion", 0], batch_size=0
        ),
        "preview": node("PreviewImage", images=["render", 0]),
        "video": node("CreateVideo", images=["render", 0], fps=["render", 1]),
        "save": saved(["video", 0]),
    }
    run = server.run(graph)
    assert run.succeeded, run.error
    assert len(run.files("preview")) == 25
    assert probe(server, run.files("save")[0])["fps"] == 25


def test_talking_head(server):
    run = server.run(talking_head())
    assert run.succeeded, run.error
    found = probe(server, run.files("save")[0])
    assert (found["frames"], found["size"]) == (25, (64, 64))
    assert found["seconds of sound"] == pytest.approx(1, abs=0.1)
    assert len(run.files("preview")) == 1


@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_motion_of_a_driving_video(server, generation):
    graph = {
        **composed(renderer=f"renderer_{generation}.safetensors"),
        "clip": node("LoadVideo", file="driving.mp4"),
        "motion": node(
            "IMTalkerEncodeMotion", renderer=["renderer", 0], crop="none", scale=1.6, fps=25.0, video=["clip", 0]
        ),
    }
    run = server.run(rendered(graph, audio=["motion", 1]))
    assert run.succeeded, run.error
    found = probe(server, run.files("save")[0])
    assert (found["frames"], found["fps"]) == (18, 24)
    assert found["seconds of sound"] == pytest.approx(18 / 24, abs=0.1)

    graph["parts"] = node("GetVideoComponents", video=["clip", 0])
    graph["motion"]["inputs"] |= {"images": ["parts", 0]}
    assert "one of the two" in refusal(server, rendered(graph))
    del graph["motion"]["inputs"]["video"]
    assert probe(server, server.run(rendered(graph)).files("save")[0])["fps"] == 25


def test_interrupted_render_leaves_nothing_and_the_next_one_works(server):
    before = temporary_videos(server)
    graph = rendered(composed(audio="long.wav"))
    run = server.run(graph, interrupt_at=10)
    assert run.of("execution_interrupted")
    assert not run.outputs
    assert temporary_videos(server) <= before  # ComfyUI may drop an earlier result meanwhile, and its file goes
    run = server.run(rendered(composed(audio="long.wav", seed=3), fps=5.0))
    assert run.succeeded, run.error


def test_out_of_memory_means_fewer_frames_at_once(server):
    graph = rendered(composed(), batch_size=8)
    graph["tight"] = node("TightMemory", renderer=["renderer", 0], frames=3)
    graph["render"]["inputs"]["renderer"] = ["tight", 0]
    run = server.run(graph)
    assert run.succeeded, run.error
    assert probe(server, run.files("save")[0])["frames"] == 25
    assert "2 frames at a time" in server.log()
    graph["tight"]["inputs"]["frames"] = 0
    assert "Out of memory" in refusal(server, graph)


def test_models_are_freed_on_request_and_come_back(server):
    graph = rendered(composed(seed=4)) | {"loaded": node("LoadedModels", after=["render", 0])}
    assert set(server.run(graph).outputs["loaded"]["text"]) == {"Renderer", "Generator"}
    server.post("/free", {"unload_models": True})
    end = time.monotonic() + 10  # ComfyUI frees models between two prompts, possibly after the next one
    while (run := server.run(graph)).outputs["loaded"]["text"] and time.monotonic() < end:
        assert run.executed == {"loaded"}
    assert run.outputs["loaded"]["text"] == []
    graph["motion"]["inputs"]["seed"] = 5
    assert set(server.run(graph).outputs["loaded"]["text"]) == {"Renderer", "Generator"}


def test_a_replaced_file_is_loaded_again(server):
    folder = server.base / "models/imtalker"
    (folder / "mine.safetensors").write_bytes((folder / "renderer_v2.safetensors").read_bytes())
    graph = rendered(composed(renderer="mine.safetensors"))
    assert server.run(graph).succeeded
    assert "renderer" not in server.run(graph).executed
    (folder / "mine.safetensors").write_bytes((folder / "generator_v2.safetensors").read_bytes())
    assert "choose a renderer" in refusal(server, graph)


def test_audio_encoder_in_a_file_of_its_own(server):
    loader = server.get("/object_info/IMTalkerLoadGenerator")["IMTalkerLoadGenerator"]["input"]["required"]
    assert "split.wav2vec2.safetensors" in loader["wav2vec2"][1]["options"]
    assert "split.wav2vec2.safetensors" not in loader["model"][1]["options"]
    run = server.run(rendered(composed(generator="split.safetensors"), fps=2.0))
    assert run.succeeded, run.error


def test_packages_of_another_pack_are_its_own(server):
    run = server.run({"neighbour": node("Neighbour")})
    assert run.outputs["neighbour"]["text"] == ["the neighbour's nodes", "the neighbour's imtalker", "True"]


class TestBadInput:
    """The table of bad input in the specification: one sentence each, shown at the node that got the input."""

    @on_one_version
    def test_wrong_weights(self, server):
        assert "truncated" in refusal(server, rendered(composed(renderer="truncated.safetensors")))
        assert "choose a renderer" in refusal(server, rendered(composed(renderer="generator_v2.safetensors")))
        assert "choose a motion generator" in refusal(server, rendered(composed(generator="renderer_v2.safetensors")))

    @on_one_version
    def test_generations_that_do_not_go_together(self, server):
        graph = rendered(composed(generator="generator_v1.safetensors"))
        assert re.search("v1 .* v2", refusal(server, graph))
        graph["other"] = node("IMTalkerLoadRenderer", model="renderer_v1.safetensors", precision="auto")
        graph["render"]["inputs"]["renderer"] = ["other", 0]
        graph["generator"]["inputs"]["model"] = "generator_v2.safetensors"
        run = server.run(graph)
        assert re.search("v1 .* v2", run.error)
        assert run.of("execution_error")[0]["node_id"] == "render"

    @pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "gone.safetensors"])
    def test_names_of_files(self, server, name):
        with pytest.raises(Refusal, match="is not in models/imtalker"):
            server.run(rendered(composed(renderer=name)))

    def test_wav2vec2_outside_the_models_folder(self, server):
        graph = rendered(composed())
        graph["generator"]["inputs"]["wav2vec2"] = "../../input"
        try:
            sentence = refusal(server, graph)
        except Refusal as refused:  # newer versions compare with the list themselves
            sentence = str(refused)
        assert re.search("leads out|not in list", sentence)

    @on_one_version
    def test_published_weights_without_a_network(self, server):
        sentence = refusal(server, rendered(composed(renderer=PUBLISHED)))
        assert "renderer.ckpt cannot be downloaded" in sentence
        assert "https://" in sentence
        local = server.base / "models/imtalker/renderer.ckpt"
        local.write_bytes(b"not weights")
        try:
            assert "not a file that torch saved" in refusal(server, rendered(composed(renderer=PUBLISHED)))
        finally:
            local.unlink()

    @on_one_version
    def test_pictures(self, server):
        assert "160x120 but must be square" in refusal(server, rendered(composed(image="wide.png")))
        assert server.run(rendered(composed(image="grey_alpha.png"), fps=2.0)).succeeded
        graph = rendered(composed())
        graph["batch"] = node("RepeatImageBatch", image=["image", 0], amount=2)
        graph["source"]["inputs"]["image"] = ["batch", 0]
        assert "not a batch of 2" in refusal(server, graph)

    @on_one_version
    def test_no_face(self, server):
        # with or without a face detector: a gradient has no face
        assert re.search("No face|face detector is missing", refusal(server, talking_head(crop="face")))
        assert server.run(talking_head(crop="face", no_face="whole picture")).succeeded

    def test_sound(self, server):
        graph = rendered(composed())
        graph["clip"] = node("LoadVideo", file="driving.mp4")
        graph["parts"] = node("GetVideoComponents", video=["clip", 0])
        graph["features"]["inputs"]["audio"] = ["parts", 1]
        assert "no sound" in refusal(server, graph)
        graph["audio"] = node("MadeUpAudio", samples=0, channels=1, rate=16000, value=0.0)
        graph["features"]["inputs"]["audio"] = ["audio", 0]
        assert "empty" in refusal(server, graph)
        graph["audio"]["inputs"] |= {"samples": 100, "value": float("inf")}
        assert "infinite" in refusal(server, graph)
        graph["audio"]["inputs"] |= {"samples": 50, "channels": 6, "rate": 8000, "value": 0.0}
        run = server.run(graph)
        assert run.succeeded, run.error
        assert probe(server, run.files("save")[0])["frames"] == 1

    def test_frames_that_do_not_fit_into_memory(self, server):
        graph = composed() | {
            "long": node("MadeUpMotion", frames=50_000_000, size=1),
            "render": node(
                "IMTalkerRender", renderer=["renderer", 0], source=["source", 0], motion=["long", 0], batch_size=0
            ),
            "preview": node("PreviewImage", images=["render", 0]),
        }
        sentence = refusal(server, graph)
        assert re.search(r"50000000 frames of 64x64 need 2288\.8 GB .* Render Video", sentence)
