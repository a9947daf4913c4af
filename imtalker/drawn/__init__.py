"""Drawn heads: cartoon people, drawn by the project itself, whose motion is known exactly."""
