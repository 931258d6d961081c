"""Benchmarks: the operations, the layers and the workloads, by device; and the comparison with
PyTorch.
"""
