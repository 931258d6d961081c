"""Benchmarks: the operations, the layers and the five workloads, by device; and the comparison with
PyTorch.
"""
