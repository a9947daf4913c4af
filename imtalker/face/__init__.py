"""Find a face, follow it, cut it out and paste it back."""
