"""Recovery against a real MariaDB."""
