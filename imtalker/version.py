"""The version, in one place: files and videos that the package writes name it."""

__version__ = "0.1.0"
