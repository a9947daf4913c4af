"""Expression node: blinks, brows, smiles and whatever else a rig has, drawn as keyframes and added to a motion."""

from comfy_api.latest import io

from ..imtalker import Motion, Rig
from ..imtalker.media.audio import Audio
from ..imtalker.motion.expression import EXPRESSION, MAX_BLINKS, blink_times, express, lacking, one_for_both
from ..imtalker.motion.keyframes import parse
from ..imtalker.motion.presets import EXPRESSION_PRESETS
from . import host, types
from .keyframes import RESENT, editor_input, waveform
from .schema import schema


class Expression(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerExpression",
            display_name="IMTalker Expression",
            category="IMTalker/motion",
            description="Draw an expression over time and add it to a motion: blinks, brows, smile, mouth, gaze and "
            "every other channel of the rig.",
            inputs=[
                editor_input(EXPRESSION, EXPRESSION_PRESETS),
                io.Float.Input(
                    "seconds",
                    default=0.0,
                    min=0.0,
                    max=3600.0,
                    step=0.1,
                    tooltip="Length of the result in seconds; a longer one holds the motion's last frame. 0: as long "
                    "as the motion.",
                ),
                io.Float.Input(
                    "blinks",
                    default=0.0,
                    min=0.0,
                    max=MAX_BLINKS,
                    step=1.0,
                    tooltip="Blinks a minute, added at natural intervals. 0: none; 17: at rest; 26: in conversation.",
                ),
                # a name without control_after_generate: a new seed would render again what has no blinks
                io.Int.Input(
                    "blink_seed", default=0, min=0, max=2**63 - 1, tooltip="Another seed blinks at other times."
                ),
                io.Boolean.Input(
                    "allow_more",
                    default=False,
                    tooltip="Allows values up to 2, and more in sum than the rig saw; the face may distort.",
                ),
                types.Motion.Input("motion", tooltip="From Sample Motion, Encode Motion or Load Motion."),
                types.Rig.Input("rig", tooltip="From Load Rig or Learn Rig, for the weights that made the motion."),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="The speech: its waveform appears behind the curves, for other nodes than Load Audio after "
                    "a run. It changes nothing else.",
                ),
            ],
            outputs=[types.Motion.Output(display_name="motion", tooltip="For Render or another Expression.")],
            **RESENT,
        )

    @classmethod
    @host.answer
    def execute(
        cls,
        keyframes: str,
        seconds: float,
        blinks: float,
        blink_seed: int,
        allow_more: bool,
        motion: Motion,
        rig: Rig,
        audio: Audio | None = None,
    ) -> io.NodeOutput:
        settings = {"seconds": seconds, "allow_more": allow_more, "blinks": blinks, "seed": blink_seed}
        result = express(motion, rig, keyframes, **settings)
        shown = {
            "seconds": motion.seconds,
            "channels": [*EXPRESSION, *(rig.names[number] for number in rig.usable())],
            "lacking": lacking(rig, {**EXPRESSION, **parse(keyframes, None)}),
            "one_for_both": one_for_both(rig),
            "blinks": blink_times(blinks, blink_seed, result.seconds),
        }
        ui = {"imtalker_expression": [shown]} | ({"imtalker_waveform": [waveform(audio)]} if audio else {})
        return io.NodeOutput(result, ui=ui)


NODES = [Expression]
