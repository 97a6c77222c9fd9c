"""Tests of the embedded Proctor: without it, no other test would mean anything."""
