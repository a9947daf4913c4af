"""Dub: a video that exists says new words."""

import itertools
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import torch
from comfy_api.latest import io
from torch import Tensor

from ..imtalker import InputError, Rig
from ..imtalker.dubbing.dub import Ending, check_models, latents_for, most_needed, shown
from ..imtalker.dubbing.mouth import Manner, Mouth
from ..imtalker.dubbing.plan import Following, Plan, Shots, Tracking, study
from ..imtalker.dubbing.redraw import Pasting, Redrawing
from ..imtalker.media.audio import Audio
from ..imtalker.media.mixing import Mixed
from ..imtalker.media.video import frame_rate
from ..imtalker.motion.motion import Motion
from . import face as faces
from . import folders, host, render, sample, types
from .doors.clips import Clip
from .rig import own_rig
from .schema import schema
from .temporary import lost_files

log = logging.getLogger("imtalker")

ONE_MASK, EACH_FRAME = "one for all frames", "one per frame"


def share_input(name: str, default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.05, tooltip=tooltip)


class Dub(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerDub",
            display_name="IMTalker Dub",
            category="IMTalker",
            description="Makes a person in a video say something else: only the lower face is drawn anew, the rest of "
            "every frame stays as it is. Get the consent of the people you dub, and say that the video is synthetic.",
            inputs=[
                types.Renderer.Input("renderer", tooltip="From Load IMTalker Renderer."),
                types.Generator.Input("generator", tooltip="From Load IMTalker Generator."),
                io.Video.Input("video", tooltip="The clip to dub, streamed from disk. The face must be visible."),
                io.Audio.Input("audio", tooltip="The new speech, of any length and sample rate."),
                *sample.sampling_inputs(),
                io.Combo.Input(
                    "face",
                    options=faces.ORDERS_OF_FACES,
                    tooltip="Who is dubbed if there are several people: the largest face, counted from left to right, "
                    "nearest to centre, or with the best score of the detector. Chosen in the first frame that shows a "
                    "face, then followed. For two people use two nodes, one after the other.",
                ),
                io.Int.Input("index", default=0, min=0, max=99, tooltip="Which face in that order. 0 is the first."),
                io.Combo.Input(
                    "crop",
                    options=["face", "none"],
                    tooltip="face: a square around the face. none: the middle square of every frame, for a clip that "
                    "is already framed like a portrait.",
                ),
                io.Combo.Input(
                    "tracking",
                    options=list(get_args(Tracking)),
                    tooltip="smooth: the square follows the head. steady: one square for a whole shot, for a head that "
                    "stays in place.",
                ),
                faces.scale_input(),
                io.Combo.Input(
                    "shots",
                    options=list(get_args(Shots)),
                    tooltip="Which shots of an edited video are dubbed. same view: those that look like the first one "
                    "with the face; others stay as they are. every shot: all, and the face is chosen anew after each "
                    "cut.",
                ),
                io.Combo.Input(
                    "ending",
                    options=list(get_args(Ending)),
                    tooltip="If video and speech differ in length. cut: ends with the shorter one. hold and ping-pong: "
                    "lasts as long as the longer one; a video that ends first stays on its last frame or goes back and "
                    "forth, and after the speech the mouth rests.",
                ),
                share_input(
                    "lower_face",
                    0.5,
                    "How much of the face is drawn anew. 0: the lips; 0.5: mouth and chin; 1: everything below the "
                    "eyes. A connected mask replaces it.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How far the mouth moves about its rest. 0: stays shut; 1: as the model speaks; 2: twice "
                    "as far.",
                ),
                share_input(
                    "head",
                    1.0,
                    "How much of the head's own movement the new lower face follows. 1: all of it, so that it fits the "
                    "head. Lower steadies it towards the first frame of the shot; the edge of the mask may then show.",
                ),
                share_input(
                    "colour_match",
                    0.0,
                    "How closely the new lower face matches the colours along the soft edge. Try 0.5 if a tint shows.",
                ),
                io.Float.Input(
                    "gate",
                    default=-50.0,
                    min=-120.0,
                    max=0.0,
                    step=1.0,
                    tooltip="The mouth rests where the speech is quieter than this, in dB of full scale, such as in "
                    "pauses with noise. -120: never.",
                ),
                share_input("keep_sound", 0.0, "Volume of the video's own sound under the speech. 0: only the speech."),
                io.Int.Input(
                    "quality",
                    default=18,
                    min=0,
                    max=40,
                    tooltip="H.264 quality (CRF); lower is better. 0: lossless, large; 18: looks lossless; 28: small.",
                ),
                io.Combo.Input(
                    "mask_output",
                    options=[ONE_MASK, EACH_FRAME],
                    tooltip="one for all frames: a single mask of everything that was pasted, in the same memory for "
                    "any length. one per frame: as many masks as frames, for short clips.",
                ),
                types.Rig.Input(
                    "rig",
                    optional=True,
                    tooltip="From Load Rig or Learn Rig: tells the mouth from the rest of the face. Without it, the "
                    "generator is asked once, which takes seconds on a GPU and minutes on a CPU; the answer is kept "
                    "in models/imtalker/rigs.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="What may change, in white, over the whole frame; black stays as it is. One mask, or one "
                    "per frame of the video. Replaces lower_face.",
                ),
                render.mark_input(),
            ],
            outputs=[
                io.Video.Output(
                    display_name="video", tooltip="At the video's own frame rate and size, for Save Video."
                ),
                io.Mask.Output(display_name="mask", tooltip="How much of each pixel is new, 0 to 1."),
                io.String.Output(
                    display_name="report",
                    tooltip="How many frames were dubbed, and how many were left as they are and why. Connect a node "
                    "that shows text, such as Preview Any.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_) -> int:
        return lost_files()

    @classmethod
    @host.answer
    def execute(
        cls,
        renderer: host.Handle,
        generator: host.Handle,
        video: Clip,
        audio: Audio,
        seed: int,
        steps: int,
        cfg: float,
        face: str,
        index: int,
        crop: str,
        tracking: str,
        scale: float,
        shots: str,
        ending: str,
        lower_face: float,
        strength: float,
        head: float,
        colour_match: float,
        gate: float,
        keep_sound: float,
        quality: int,
        mask_output: str,
        rig: Rig | None = None,
        mask: Tensor | None = None,
        mark: str = "",
    ) -> io.NodeOutput:
        check_models(renderer.model, generator.model)
        if mask is not None and not mask.any():
            raise InputError("The mask of Dub is empty, nothing would change: paint what may change white.")
        rig = own_rig(generator) if rig is None else rig
        mouth = Mouth(generator.model, rig, Manner(strength, gate, head, cfg or None, steps, seed))
        most = most_needed(audio, frame_rate(video.fps), ending)
        looked = host.Progress(min(n for n in (video.count, most, 10**9) if n is not None))
        following = Following(face, index, "auto" if crop == "face" else "none", tracking, scale, shots)
        with faces.advising('set crop to "none"'):
            plan = study(itertools.islice(video.frames, most), video.fps, following, looked.step, **folders.detector())
        at = shown(len(plan), audio, frame_rate(video.fps), ending)
        masks = Masks(len(at) if mask_output == EACH_FRAME else 1, plan)
        own = video.sound() if keep_sound or mouth.by_difference else None

        pasting = Pasting(lower_face, colour_match, mask)
        redrawing = Redrawing(host.on_device(renderer, renderer.model.bytes_per_image), video.frames, plan, pasting)
        person = redrawing.source(plan.first)
        count = latents_for(len(at), video.fps)
        progress = host.Progress(sample.window_count(generator, count) + len(at))
        host.on_device(generator, host.audio_memory(generator.model, audio.seconds))
        wanted = sampled(mouth.wanted(person, audio, own, count), progress).at_fps(video.fps, len(at))
        host.on_device(renderer, redrawing.memory)
        frames = host.previewed(masks.kept(redrawing.stream(mouth, [wanted], at)), progress)
        sound = Mixed(audio, own, keep_sound) if own and keep_sound else audio
        dubbed = render.write(frames, video.fps, sound, quality, mark)
        report = redrawing.report()
        log.log(logging.WARNING if plan.left_alone else logging.INFO, "%s", report)
        return io.NodeOutput(dubbed, masks.found, report)


def sampled(blocks: Iterator[Motion], progress: host.Progress) -> Motion:
    """All of a motion, at a step of progress each window: the renderer may need the generator's place."""
    found = list(host.counted(blocks, progress))
    return replace(found[0], latents=torch.cat([block.latents for block in found]))


class Masks:
    """What was pasted into the frames of a plan's clip: a mask each, or one for all of them."""

    def __init__(self, count: int, plan: Plan):
        height, width = plan.height, plan.width
        host.check_room(
            count * height * width * 4,
            f"{count} masks of {width}x{height}",
            f"set mask_output to {ONE_MASK}.",
        )
        self.found = torch.zeros(count, height, width, device=host.result_device())

    def kept(self, blocks: Iterator[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
        """Passes the frames (n,H,W,3) on and keeps their masks (n,H,W)."""
        done = 0
        for frames, masks in blocks:
            masks = masks.to(self.found)
            if len(self.found) == 1:
                self.found = torch.maximum(self.found, masks.amax(dim=0))
            else:
                self.found[done : done + len(masks)] = masks
            done += len(masks)
            yield frames


NODES = [Dub]
