"""VIDEO of ComfyUI's own classes, old and new: the part that is meant, streamed wherever its file shows it."""

import importlib
import io
import itertools
import sys
import types
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from imtalker import InputError
from imtalker.media.audio import Audio, read_audio
from imtalker.media.video import VideoReader
from imtalker.media.video_writer import write_video

sys.path.append(str(Path(__file__).parents[1] / "comfy"))
from server import VERSIONS, comfyui

FILES = "comfy_api/latest/_input_impl/video_types.py"


@pytest.fixture(params=VERSIONS)
def comfy(request):
    """The module of VIDEO's classes of a ComfyUI, without the rest of it."""
    checkout, _ = comfyui(request.param)
    if not (checkout / FILES).is_file():
        pytest.skip(f"no ComfyUI {request.param}")
    for name in ("comfy_api", "comfy_api.latest"):
        sys.modules[name] = package = types.ModuleType(name)
        package.__path__ = [str(checkout / name.replace(".", "/"))]
    yield importlib.import_module("comfy_api.latest._input_impl.video_types")
    for name in [name for name in sys.modules if name.split(".")[0] == "comfy_api"]:
        del sys.modules[name]


@pytest.fixture
def new(comfy):
    if not hasattr(comfy.VideoFromFile, "as_trimmed"):
        pytest.skip("this ComfyUI cannot trim")
    return comfy


@pytest.fixture
def enter(pack, tmp_path):
    door, opening = pack("nodes.doors.clips").video, pack("nodes.doors.opening")
    numbers = itertools.count()
    return lambda value: opening.enter(
        "video", door, value, new_file=lambda end: str(tmp_path / f"{next(numbers)}{end}")
    )


@pytest.fixture
def streamed(monkeypatch):
    """Makes a class fail if it decodes or encodes a whole clip."""

    def never(*args, **kwargs):
        raise AssertionError("the whole clip was decoded or encoded")

    def watch(kind):
        monkeypatch.setattr(kind, "get_components", never)
        monkeypatch.setattr(kind, "save_to", never)

    return watch


@pytest.fixture(scope="module")
def file(inputs):
    return str(inputs / "driving.mp4")  # 30 fps, 21 frames, 80 x 60, with sound


def check_part(clip, file, first, end):
    """The frames first..end of the file and the sound that belongs to them."""
    expected = list(VideoReader(file))[first:end]
    assert (clip.fps, clip.count) == (30, len(expected))
    for _ in range(2):
        frames = list(clip.frames)
        assert len(frames) == len(expected)
        assert all(map(torch.equal, frames, expected))
    sound, whole = clip.sound(), read_audio(file)
    edges = [round(frame / 30 * 44100) for frame in (first, first + len(expected))]
    assert abs(sound.samples - (edges[1] - edges[0])) <= 1470  # a frame; the whole sound may be padded
    assert sound.waveform.equal(whole.waveform[:, edges[0] : edges[0] + sound.samples])


def test_a_whole_file_is_streamed(comfy, streamed, enter, file):
    streamed(comfy.VideoFromFile)
    check_part(enter(comfy.VideoFromFile(file)), file, 0, None)


def test_a_video_in_memory_is_streamed(comfy, streamed, enter, file):
    streamed(comfy.VideoFromFile)
    check_part(enter(comfy.VideoFromFile(io.BytesIO(Path(file).read_bytes()))), file, 0, None)


PARTS = {(0.2, 0.3): (6, 15), (0.2, 0): (6, None), (0, 0.1): (0, 3), (-0.3, 0): (12, None), (0.21, 0.1): (7, 10)}


@pytest.mark.parametrize("window", PARTS)
@pytest.mark.parametrize("where", ["disk", "memory"])
def test_a_part_of_a_file_is_streamed(new, streamed, enter, file, window, where):
    source = file if where == "disk" else io.BytesIO(Path(file).read_bytes())
    video = new.VideoFromFile(source, start_time=window[0], duration=window[1])
    theirs = video.get_components().images
    first, end = PARTS[window]
    ours = torch.stack(list(VideoReader(file))[first:end]) / 255
    assert theirs.shape == ours.shape
    assert (theirs - ours).abs().mean() < 0.02
    streamed(new.VideoFromFile)
    check_part(enter(video), file, first, end)


def test_frames_before_and_after_a_part_are_not_converted(new, enter, file, monkeypatch):
    converted = []
    convert = VideoReader._image
    monkeypatch.setattr(VideoReader, "_image", lambda self, frame: converted.append(frame) or convert(self, frame))
    clip = enter(new.VideoFromFile(file, start_time=0.2, duration=0.3))
    assert len(list(clip.frames)) == len(converted) == 9


def test_a_video_in_memory_needs_room_on_disk(comfy, pack, file, tmp_path):
    video = comfy.VideoFromFile(io.BytesIO(Path(file).read_bytes()))
    with pytest.raises(InputError, match="temp folder"):
        pack("nodes.doors.clips").video("video", video, lambda end: str(tmp_path / "none" / "x"))


@pytest.mark.parametrize("window", PARTS)
def test_versions_that_do_not_tell_the_part_are_understood(new, streamed, enter, file, window, monkeypatch):
    for kind in new.VideoFromFile.__mro__[:2]:
        monkeypatch.delattr(kind, "get_active_trim_window")
    streamed(new.VideoFromFile)
    video = new.VideoFromFile(file, start_time=window[0], duration=window[1])
    check_part(enter(video), file, *PARTS[window])


def test_a_part_that_is_kept_in_an_unknown_way_is_left_to_comfyui(comfy, enter, file):
    class VideoFromFile(comfy.VideoFromFile):
        """Trims by a field that we do not know."""

        def get_duration(self):
            return 0.1

        def get_components(self):
            parts = super().get_components()
            return types.SimpleNamespace(images=parts.images[3:6], audio=None, frame_rate=parts.frame_rate)

    clip = enter(VideoFromFile(file))
    assert (clip.count, len(list(clip.frames))) == (3, 3)
    assert clip.sound() is None


@pytest.mark.parametrize("tell", ["has_pending_frame_edits", "get_dimensions"])
def test_crops_and_resizes_are_left_to_comfyui(comfy, enter, file, tell):
    class VideoFromFile(comfy.VideoFromFile):
        """Frames cut to 40 x 30, as in 0.35."""

        def get_components(self):
            parts = super().get_components()
            return types.SimpleNamespace(
                images=parts.images[:, :30, :40], audio=parts.audio, frame_rate=parts.frame_rate
            )

    answer = {"has_pending_frame_edits": True, "get_dimensions": (40, 30)}[tell]
    setattr(VideoFromFile, tell, lambda self: answer)
    clip = enter(VideoFromFile(file))
    assert {tuple(frame.shape) for frame in clip.frames} == {(30, 40, 3)}
    assert clip.sound().seconds == pytest.approx(0.7, abs=0.05)


@pytest.mark.parametrize("edited", [True, False])
def test_a_version_that_says_that_it_is_edited_in_a_field(comfy, enter, file, edited):
    class VideoFromFile(comfy.VideoFromFile):
        has_pending_frame_edits = edited

        def get_components(self):
            return types.SimpleNamespace(images=torch.zeros(2, 8, 8, 3), frame_rate=25)

    assert enter(VideoFromFile(file)).count == (2 if edited else 21)


@pytest.mark.parametrize("part", ["get_stream_source", "get_dimensions", "get_duration", "has_pending_frame_edits"])
def test_a_version_that_cannot_say_something_is_left_to_comfyui(comfy, enter, file, part):
    class VideoFromFile(comfy.VideoFromFile):
        def get_components(self):
            return types.SimpleNamespace(images=torch.ones(2, 8, 8, 3), frame_rate=25)  # nor anything about sound

    def never(self):
        raise NotImplementedError

    setattr(VideoFromFile, part, never)
    clip = enter(VideoFromFile(file))
    assert clip.count == len(list(clip.frames)) == 2
    assert clip.sound() is None


@pytest.mark.parametrize("shape", [(3, 6, 8, 1), (3, 6, 8)])
def test_alpha_is_composited_over_white(comfy, enter, shape):
    images, alpha = torch.full((3, 6, 8, 3), 0.5).half(), torch.full(shape, 0.25)

    def clip(alpha):
        return enter(Video(types.SimpleNamespace(images=images, alpha=alpha, frame_rate=25, audio=None)))

    class Video(comfy.VideoFromComponents):
        def get_components(self):
            return self._VideoFromComponents__components

    for _ in range(2):
        assert torch.stack(list(clip(alpha).frames)).unique().tolist() == [0.875]
    assert clip(None).frames[0].unique().tolist() == [0.5]
    with pytest.raises(InputError, match="alpha of video"):
        clip(alpha[:2])
    with pytest.raises(InputError, match="NaN"):
        clip(alpha * float("nan"))


def test_a_list_of_videos_is_not_encoded_to_be_thrown_away(comfy, streamed, enter, file):
    class VideoFromList(comfy.VideoInput):
        def __init__(self, parts):
            self.parts = parts

        def get_components(self):
            images = torch.cat([part.get_components().images for part in self.parts])
            return types.SimpleNamespace(images=images, audio=None, frame_rate=Fraction(30))

        def get_stream_source(self):
            raise AssertionError("the whole clip was encoded")

        save_to = as_trimmed = get_stream_source

    assert enter(VideoFromList([comfy.VideoFromFile(file)] * 2)).count == 42


@pytest.mark.parametrize("sides", [(61, 81), (60, 80)])
def test_create_video_is_read_as_its_images(comfy, enter, monkeypatch, sides):
    def never(*args, **kwargs):
        raise AssertionError("the clip was encoded")

    monkeypatch.setattr(comfy.VideoFromComponents, "save_to", never)
    images = torch.rand(5, *sides, 3)
    tone = {"waveform": torch.rand(1, 2, 4410), "sample_rate": 22050}
    parts = comfy.VideoComponents(images=images, audio=tone, frame_rate=Fraction(30000, 1001))
    clip = enter(comfy.VideoFromComponents(parts))
    assert (clip.count, clip.fps) == (5, pytest.approx(29.97, abs=0.001))
    assert torch.stack(list(clip.frames)).equal(images)
    assert clip.sound().waveform.equal(tone["waveform"][0])
    for silent in (None, {"waveform": torch.zeros(1, 1, 0), "sample_rate": 1}, {"waveform": None}, {}):
        parts = comfy.VideoComponents(images=images, audio=silent, frame_rate=Fraction(25))
        assert enter(comfy.VideoFromComponents(parts)).sound() is None


def test_a_clip_whose_sound_cannot_be_used_is_silent(comfy, enter, tmp_path, caplog):
    path = str(tmp_path / "silent.mp4")
    write_video(path, torch.rand(3, 32, 32, 3), 25)
    assert enter(comfy.VideoFromFile(path)).sound() is None
    assert not caplog.records
    write_video(path, torch.rand(3, 32, 32, 3), 25, Audio(torch.rand(1, 1600) - 0.5, 16000))
    clip = enter(comfy.VideoFromFile(path))
    whole = Path(path).read_bytes()
    # a codec that nobody knows
    Path(path).write_bytes(whole.replace(b"mp4a\0\0\0\0", b"xxxx\0\0\0\0").replace(b"esds", b"xxxx"))
    assert clip.sound() is None
    assert "stays silent" in caplog.text


def test_what_is_no_video_is_a_sentence(comfy, enter, file, tmp_path):
    gone = tmp_path / "gone.mp4"
    gone.write_bytes(Path(file).read_bytes())
    values = [None, file, 5, torch.zeros(1, 4, 4, 3), {"images": 1}, comfy.VideoFromFile(str(tmp_path / "none.mp4"))]
    values += [comfy.VideoFromFile(io.BytesIO(b"no video")), comfy.VideoFromFile(str(tmp_path))]
    for images in (torch.zeros(0, 3, 0, 0), torch.full((1, 8, 8, 3), float("nan")), None):
        parts = comfy.VideoComponents(images=images, audio=None, frame_rate=Fraction(25))
        values.append(comfy.VideoFromComponents(parts))
    for rate in (0, float("nan"), None):
        parts = comfy.VideoComponents(images=torch.rand(1, 8, 8, 3), audio=None, frame_rate=rate)
        values.append(comfy.VideoFromComponents(parts))
    for value in values:
        with pytest.raises(InputError):
            enter(value)


def test_a_part_behind_the_end_is_a_sentence(new, enter, file):
    with pytest.raises(InputError, match="No frame of the video lies"):
        enter(new.VideoFromFile(file, start_time=5))
