"""Files as people have them -> documents: text with a title, and what helps retrieval as markdown.

One format or family a module; ``registry`` knows which suffix is read by which.
"""

from sage_connectors.documents.parts import Document, FilePart
from sage_connectors.documents.registry import SUFFIXES, documents

__all__ = ["SUFFIXES", "Document", "FilePart", "documents"]
