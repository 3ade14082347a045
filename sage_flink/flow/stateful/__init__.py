"""Event time, keys, windows and state: the nodes, and what they do to records, pure.

The native operators in ``connectors/native`` do the same on Flink; the in-process target runs the
functions of this folder, which are also the truth that the operators are tested against.
"""
