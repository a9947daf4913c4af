"""The package version, as written into its files and videos."""

__version__ = "0.1.0"
