"""Example node: people, voices and a driving video that ship with the pack, for a first try."""

from comfy_api.latest import InputImpl, io

from ..imtalker.drawn.example import SOMEBODY, portrait, two_people
from ..imtalker.media.audio import read_audio
from ..imtalker.weights.checkpoints import AVATAR
from . import host
from .doors.sound import to_comfy
from .sample import seed_input
from .schema import schema


class Example(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IMTalkerExample",
            display_name="IMTalker Example",
            category="IMTalker",
            description="Drawn people, two voices and a driving video, to try the nodes without files of your own.",
            inputs=[seed_input("Picks who is drawn; the same seed always draws the same person.", SOMEBODY)],
            outputs=[
                io.Image.Output(
                    display_name="image",
                    tooltip="A portrait, 512 x 512, framed as in the avatar's training: Encode Source can take it "
                    "without Face Crop.",
                ),
                io.Audio.Output(
                    display_name="audio",
                    tooltip="4 seconds of synthetic speech (espeak-ng), the same for every seed.",
                ),
                io.Image.Output(
                    display_name="two_people",
                    tooltip="1024 x 512: the person of image on the left and somebody else on the right.",
                ),
                io.Audio.Output(
                    display_name="answer",
                    tooltip="4 seconds of synthetic speech by another voice, the same for every seed.",
                ),
                io.Video.Output(
                    display_name="driving",
                    tooltip="4 seconds of a drawn person who looks around, blinks and speaks, with the sound of audio; "
                    "256 x 256 at 25 frames a second, the same for every seed.",
                ),
            ],
        )

    @classmethod
    @host.answer
    def execute(cls, seed: int) -> io.NodeOutput:
        speech, answer = (to_comfy(read_audio(AVATAR / f"{name}.wav")) for name in ("speech", "answer"))
        head, pair = (draw(512, seed).to(host.result_device()) for draw in (portrait, two_people))
        return io.NodeOutput(head, speech, pair, answer, InputImpl.VideoFromFile(str(AVATAR / "driving.mp4")))


NODES = [Example]
