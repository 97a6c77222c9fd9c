"""One call, one token, one HTTP request."""
