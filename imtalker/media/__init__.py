"""Audio, image, video and tensor files: read safely, written whole or not at all."""
