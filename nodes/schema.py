"""The schema of a node, with what only newer versions of ComfyUI show: see SHOWN."""

import inspect
from dataclasses import dataclass, fields

from comfy_api.latest import io


@dataclass(frozen=True)
class Shown:
    """What newer versions show of a node.

    words: the node is found by them in the page's search. ComfyUI puts nodes with a word in their name first, so each
        word stands at the one node that should come first for it.
    advanced: inputs folded away until somebody asks for them.
    essentials: the node's section among the essentials, as ComfyUI calls it.
    """

    words: tuple[str, ...] = ()
    advanced: tuple[str, ...] = ()
    essentials: str | None = None


SHOWN = {
    "IMTalkerTalkingHead": Shown(
        ("lip sync", "lipsync", "talking head", "portrait", "avatar", "talking photo", "speaking portrait")
        + ("speech to video", "audio to video", "digital human", "说话", "口型同步", "对口型", "数字人"),
        advanced=("steps", "cfg", "scale"),
        essentials="Video Tools",
    ),
    "IMTalkerExample": Shown(("example", "demo", "try out", "drawn head", "示例")),
    "IMTalkerLoadRenderer": Shown(("checkpoint", "weights", "face model"), advanced=("precision",)),
    "IMTalkerLoadGenerator": Shown(("speech model", "wav2vec2"), advanced=("wav2vec2", "precision")),
    "IMTalkerLoadRig": Shown(("rig", "face controls", "blendshapes", "motion directions")),
    "IMTalkerLearnRig": Shown(("train rig", "calibrate face", "learn blendshapes")),
    "IMTalkerFaceCrop": Shown(
        ("crop face", "face detection", "detect face", "cut out face", "face box", "裁剪人脸", "人脸检测"),
        advanced=("padding", "size", "box_order"),
    ),
    "IMTalkerPasteBack": Shown(
        ("paste face", "face paste", "uncrop", "stitch face", "composite face", "贴回人脸"), advanced=("even_size",)
    ),
    "IMTalkerEncodeSource": Shown(("source image", "identity", "appearance")),
    "IMTalkerEncodeAudio": Shown(("speech features", "encode speech", "voice", "audio encoder")),
    "IMTalkerEncodeMotion": Shown(
        ("reenact", "reenactment", "face reenactment", "driving video", "video to video", "motion transfer")
        + ("expression transfer", "motion capture", "表情迁移", "视频驱动")
    ),
    "IMTalkerSampleMotion": Shown(
        ("speech to motion", "audio to motion", "audio driven", "sampler", "语音驱动"),
        advanced=("steps", "control_end", "joins"),
    ),
    "IMTalkerIdleMotion": Shown(("idle", "breathing", "listening")),
    "IMTalkerPoseControl": Shown(
        ("head pose", "head rotation", "turn head", "yaw pitch roll", "nod", "shake head", "camera", "头部姿态"),
        advanced=("allow_more",),
    ),
    "IMTalkerGazeControl": Shown(
        ("gaze", "eye gaze", "eye direction", "eyes", "look at camera", "eye contact", "视线"), advanced=("allow_more",)
    ),
    "IMTalkerExpression": Shown(
        ("expression", "facial expression", "emotion", "smile", "blink", "blinking", "wink", "eyebrows", "brows")
        + ("puppet", "表情", "眨眼", "微笑"),
        advanced=("allow_more", "blink_seed"),
    ),
    "IMTalkerBlendControl": Shown(("mix controls", "merge controls")),
    "IMTalkerControlFromVideo": Shown(
        ("head tracking", "pose from video", "gaze from video", "face tracking", "track head", "SMIRK", "L2CS"),
        advanced=("gaze_order",),
    ),
    "IMTalkerLoadControl": Shown(("load pose", "load gaze", "pose file"), advanced=("gaze_order",)),
    "IMTalkerEditMotion": Shown(
        ("smooth motion", "speed up", "slow down", "reverse motion", "loop motion", "trim motion"), advanced=("fps",)
    ),
    "IMTalkerJoinMotion": Shown(("concatenate motion", "merge motion", "blend motion", "crossfade")),
    "IMTalkerRetargetMotion": Shown(
        ("retarget", "relative motion", "transfer expression", "keep own pose", "neutral reference")
    ),
    "IMTalkerFitLength": Shown(("match length", "loop to audio", "ping pong", "stretch motion", "repeat frames")),
    "IMTalkerCombineParts": Shown(("lips only", "eyes only", "mouth only", "mix parts", "swap expression")),
    "IMTalkerSilenceGate": Shown(("close mouth", "silence", "two speakers", "noise gate", "quiet")),
    "IMTalkerDub": Shown(
        ("dub", "dubbing", "redub", "wav2lip", "latentsync", "translate video", "new speech for a video", "配音"),
        advanced=("steps", "cfg", "scale", "shots", "head", "gate", "mask_output", "quality"),
        essentials="Video Tools",
    ),
    "IMTalkerSaveMotion": Shown(("export motion",)),
    "IMTalkerLoadMotion": Shown(("import motion",)),
    "IMTalkerRender": Shown(("render frames", "animate face"), advanced=("batch_size",)),
    "IMTalkerRenderVideo": Shown(("long video", "render to file", "watermark"), advanced=("batch_size",)),
}

FIELDS = {field.name for field in fields(io.Schema)}
HAS_ADVANCED = "advanced" in inspect.signature(io.Input.__init__).parameters


def schema(node_id: str, inputs: list[io.Input], **rest) -> io.Schema:
    """io.Schema with the node's row of SHOWN, as far as this version of ComfyUI knows its fields."""
    shown = SHOWN.get(node_id, Shown())
    newer = {"search_aliases": list(shown.words), "essentials_category": shown.essentials}
    if HAS_ADVANCED:
        for one in inputs:
            one.advanced = one.id in shown.advanced or None
    known = {name: value for name, value in newer.items() if name in FIELDS}
    return io.Schema(node_id=node_id, inputs=inputs, **known, **rest)
