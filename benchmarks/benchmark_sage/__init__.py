"""benchmark_sage: workloads, peers and results, one file each, for sage and for others."""
