"""Files of sound, picture, film and tensors, read safely and written whole or not at all."""
