"""Whole pipelines. Each module has ``build(config) -> Graph`` and a ``main`` for ``flink run``."""
