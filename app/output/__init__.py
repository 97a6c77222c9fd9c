"""Where the CSV goes, and what keeps it safe there."""
