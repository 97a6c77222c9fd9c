"""Proctor and its token endpoint: one HTTP request, one token, one call."""
