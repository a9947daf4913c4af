"""Benchmarks behind the README's numbers: python -m benchmarks.{render,reenact,sample,end_to_end,memory} --help"""
