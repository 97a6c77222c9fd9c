"""Tests of app/output."""
