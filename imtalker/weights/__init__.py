"""Weight files: reading, converting, saving, downloading."""
