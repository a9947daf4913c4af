"""Find a face, follow it, crop it and paste it back."""
