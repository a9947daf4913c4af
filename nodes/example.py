"""A head and a voice that come with the pack, for a first try."""

from comfy_api.latest import io

from ..imtalker.drawn.example import SOMEBODY, portrait
from ..imtalker.media.audio import read_audio
from ..imtalker.weights.checkpoints import AVATAR
from . import host, types
from .sample import seed_input


class Example(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IMTalkerExample",
            display_name="IMTalker Example",
            category="IMTalker",
            description="A drawn head and a few seconds of speech, to try the nodes without files of your own.",
            inputs=[seed_input("Who is drawn: another seed, somebody else; the same one, the same head.", SOMEBODY)],
            outputs=[
                io.Image.Output(
                    display_name="image",
                    tooltip="512 x 512, framed as the avatar learned heads: for Encode Source, without Face Crop.",
                ),
                io.Audio.Output(
                    display_name="audio",
                    tooltip="4 seconds said by espeak-ng, the same for every seed: for Encode Audio and Render Video.",
                ),
            ],
        )

    @classmethod
    @host.answer
    def execute(cls, seed: int) -> io.NodeOutput:
        head, speech = portrait(512, seed), read_audio(AVATAR / "speech.wav")
        return io.NodeOutput(head.to(host.result_device()), types.to_comfy(speech))


NODES = [Example]
