"""README.md and deploy/: what an operator reads is right, and what an operator types works."""

from tests.documents.text import DOCUMENTS, blocks, commands

__all__ = ["DOCUMENTS", "blocks", "commands"]
