"""Storage that several rooms of the gateway share.

``write_ahead_log.py`` makes an entry safe from ``kill -9`` before its SQLite file has it;
``exclusive_database.py`` is a SQLite file of one gateway, with the pages of its lists; ``redis.py``
is the connection of the stores that gateways share; ``points.py`` sends points to the time-series
store.
"""
