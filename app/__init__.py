"""Force Submit Proctor Utility: expires overdue exams through Proctor and reports each of them in a CSV."""

__version__ = "1.0.0"
