"""Example node: a head and a voice that ship with the pack, for a first try."""

from comfy_api.latest import io

from ..imtalker.drawn.example import SOMEBODY, portrait
from ..imtalker.media.audio import read_audio
from ..imtalker.weights.checkpoints import AVATAR
from . import host
from .doors.sound import to_comfy
from .sample import seed_input


class Example(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IMTalkerExample",
            display_name="IMTalker Example",
            category="IMTalker",
            description="A drawn head and a few seconds of speech, to try the nodes without files of your own.",
            inputs=[seed_input("Picks who is drawn; the same seed always draws the same person.", SOMEBODY)],
            outputs=[
                io.Image.Output(
                    display_name="image",
                    tooltip="512 x 512, framed as in the avatar's training: for Encode Source, without Face Crop.",
                ),
                io.Audio.Output(
                    display_name="audio",
                    tooltip="4 seconds of synthetic speech (espeak-ng), the same for every seed.",
                ),
            ],
        )

    @classmethod
    @host.answer
    def execute(cls, seed: int) -> io.NodeOutput:
        head, speech = portrait(512, seed), read_audio(AVATAR / "speech.wav")
        return io.NodeOutput(head.to(host.result_device()), to_comfy(speech))


NODES = [Example]
