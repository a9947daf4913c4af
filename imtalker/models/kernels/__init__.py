"""Triton kernels, one file each; only backend.py, which knows where they run, imports them."""
