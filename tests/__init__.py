"""Tests: the real job against the embedded Proctor, judged by that Proctor's own record."""
