"""Runs through real gateways and proxies: what they do to a response that was lost, and to one that was not.

They come from Debian's packages apache2, haproxy, nginx, squid, stunnel4, tinyproxy and varnish. A test whose gateway
is not installed is skipped; in CI it fails.
"""
