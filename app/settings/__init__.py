"""Every setting: where it may come from, what it may be, and what is wrong with it.

A setting `NAME` is looked up in this order: the environment (`NAME`, or the file that `NAME_FILE` names), the secret
file `/run/secrets/<name in lower case>`, the file `.env` in the working directory. An empty value counts as not set.
All problems are reported at once, by name; no message contains the value of a secret.
"""

from app.settings.configuration import Configuration, read, read_variables
from app.settings.declarations import NAMES, Settings
from app.settings.schedule import schedule_problem

__all__ = ["NAMES", "Configuration", "Settings", "read", "read_variables", "schedule_problem"]
