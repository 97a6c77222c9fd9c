"""Runs through real gateways and proxies: what they do to a response that was lost, and to one that was not."""
