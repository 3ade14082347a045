"""Files and batches as OpenAI has them: a file of requests, run as background work.

``shapes.py`` is what is told, ``moves.py`` how a batch's state changes and ``lines.py`` what one
line says, all pure; ``rows.py`` and ``disk.py`` keep it, ``runs.py`` is the one owner of running
batches, ``routes.py`` the HTTP side. Files and batches are those of one gateway, in its own folder.
"""

from sage_gateway.batches.service import Desk

__all__ = ["Desk"]
