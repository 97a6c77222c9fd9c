"""Exams that are in no CSV: found in the database by the windows of lost responses, or in the log of a run."""
