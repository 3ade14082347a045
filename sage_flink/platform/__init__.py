"""Flink cluster and local stack: the servers that jobs run on, and their clients."""
