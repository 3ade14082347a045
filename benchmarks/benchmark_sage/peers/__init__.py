"""Peers of the benchmarks: real packages, set up as their documentation recommends.

One module per peer; each runs in its own process (or Flink job) and takes a
:class:`~benchmark_sage.workload.Work` as JSON.
"""
