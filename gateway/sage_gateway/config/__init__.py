"""The configuration of a pool: ``pool.yaml`` and its schema.

``pool_spec`` is the schema with its defaults, ``pool_file`` finds, loads and validates a file.
``pool.yaml`` is the default pool, ``presets`` are further pools for common machines. A spec is
data: :mod:`sage_gateway.controlplane` acts on it.
"""
