"""Where the README's numbers come from: python -m benchmarks.{render,reenact,sample,end_to_end,memory} --help"""
