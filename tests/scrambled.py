"""The motion space without names that the rigs are tested in: benchmarks/scrambled.py."""

from benchmarks.scrambled import mixed, mixed_renderer, mixing

__all__ = ["mixed", "mixed_renderer", "mixing"]
