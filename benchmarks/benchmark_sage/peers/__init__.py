"""What the benchmarks compare with: the real packages, set up as their documentation says.

One peer a file; each runs in a process (or a Flink job) of its own and takes a
:class:`~benchmark_sage.workload.Work` as JSON.
"""
