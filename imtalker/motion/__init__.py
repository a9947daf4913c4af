"""What a face does over time: motion latents, controls, keyframes and edits."""
