"""From a prompt to a finished clip, with ComfyUI's own nodes around ours. Needs a checkpoint and an upscaler, so it is
not among the templates: docs/graphs."""

from . import parts

NAME = "Prompt to clip"
FOLDER = "docs/graphs"
PROMPT = "portrait photo of a woman, head and shoulders, facing the camera, closed mouth, plain background, soft light"


def draw(graph):
    with graph.group("Portrait from a prompt", 0, 0):
        checkpoint = graph.add("CheckpointLoaderSimple", ckpt_name="v1-5-pruned-emaonly-fp16.safetensors")
        wanted = graph.add("CLIPTextEncode", "Prompt", clip=checkpoint["CLIP"], text=PROMPT)
        unwanted = graph.add("CLIPTextEncode", "Not wanted", clip=checkpoint["CLIP"], text="hands, open mouth, text")
        latent = graph.add("EmptyLatentImage")
    with graph.group("Sample", 400, 0):
        sampled = graph.add(
            "KSampler",
            model=checkpoint["MODEL"],
            positive=wanted["CONDITIONING"],
            negative=unwanted["CONDITIONING"],
            latent_image=latent["LATENT"],
        )
        portrait = graph.add("VAEDecode", samples=sampled["LATENT"], vae=checkpoint["VAE"])
    with graph.group("Speech", 400, 640):
        speech = graph.add("LoadAudio", audio="speech.wav")
        speech = graph.add("TrimAudioDuration", audio=speech["AUDIO"], duration=10.0)["AUDIO"]
    with graph.group("Models", 0, 900):
        renderer = graph.add("IMTalkerLoadRenderer")["renderer"]
        generator = graph.add("IMTalkerLoadGenerator")["generator"]
    with graph.group("Encode", 800, 0):
        crop = graph.add("IMTalkerFaceCrop", image=portrait["IMAGE"])
        source = graph.add("IMTalkerEncodeSource", renderer=renderer, image=crop["image"])["source"]
        features = graph.add("IMTalkerEncodeAudio", generator=generator, audio=speech)["audio_features"]
    with graph.group("Motion", 1200, 0):
        motion = graph.add("IMTalkerSampleMotion", generator=generator, source=source, audio_features=features)
    with graph.group("Render", 1600, 0):
        frames = graph.add("IMTalkerRender", renderer=renderer, source=source, motion=motion["motion"])
    with graph.group("Upscale", 1600, 300):
        upscaler = graph.add("UpscaleModelLoader", model_name="RealESRGAN_x2.pth")
        upscaled = graph.add("ImageUpscaleWithModel", upscale_model=upscaler["UPSCALE_MODEL"], image=frames["images"])
    with graph.group("Result", 2000, 0):
        video = graph.add("CreateVideo", images=upscaled["IMAGE"], fps=frames["fps"], audio=speech)
        graph.add("SaveVideo", video=video["VIDEO"], filename_prefix="video/IMTalker")
    parts.note(
        graph,
        1220,
        800,
        700,
        "Choose your checkpoint, upscaler and speech. The first run downloads the published weights (2.7 GB).",
        "Speech may come from any node with an AUDIO output, such as text to speech. With music in it, put a vocal "
        "separator before **Encode Audio**, and keep the whole sound for **Create Video**.",
        "All frames are held in memory, four or sixteen times as large once upscaled: keep it under a minute.",
    )
