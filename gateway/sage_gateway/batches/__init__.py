"""Files and batches of the OpenAI API: a file of requests, run as background work.

``service.py`` is the service behind ``/v1/files`` and ``/v1/batches``; ``runner.py`` runs one batch
and is the only writer of its state. ``schema.py`` (OpenAI's objects), ``state_machine.py`` and
``request_lines.py`` are pure. ``batch_store.py`` (SQLite) and ``file_store.py`` (a folder) keep the
data; ``retries.py`` repeats a request until its answer is final. Files and batches belong to one
gateway and lie in its own folder.
"""

from sage_gateway.batches.service import BatchService

__all__ = ["BatchService"]
