"""Event loop: ``worker_thread.py`` for SQLite files, ``deadlines.py`` for timeouts."""
