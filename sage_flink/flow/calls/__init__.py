"""Calls to the model pool in Python: classification of replies, retries, batches of embeddings.

The in-process target calls through this package; on Flink the native operator keeps the same rules
(``connectors/native``), and one conformance suite runs on both.
"""
