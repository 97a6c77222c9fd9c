"""Places to look settings up, for the tests: an environment, a directory of secrets, and a `.env`."""

from pathlib import Path
from typing import Any

from app import settings
from app.settings import NAMES, Configuration

SECRET = "hunter2-Ünïque-$HOME"
REQUIRED = {
    "PROCTOR_URL": "https://proctor.example.org",
    "CLIENT_NAME": "SBAC_PT",
    "AUTH_URL": "https://sso.example.org/auth/oauth2/access_token?realm=/sbac",
    "AUTH_CLIENT_ID": "client",
    "AUTH_CLIENT_SECRET": SECRET,
    "AUTH_USERNAME": "user@example.org",
    "AUTH_PASSWORD": SECRET,
}
SECRETS = ["AUTH_CLIENT_SECRET", "AUTH_PASSWORD", "HEARTBEAT_URL"]


class Places:
    """Where settings may come from: an environment, a directory of secrets, and a .env."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.secrets = root / "secrets"
        self.secrets.mkdir()
        self.dotenv = root / ".env"

    def write_secret(self, name: str, content: bytes) -> Path:
        path = self.secrets / name.lower()
        path.write_bytes(content)
        return path

    def write_dotenv(self, content: str | bytes, mode: int = 0o600) -> None:
        self.dotenv.write_bytes(content.encode() if isinstance(content, str) else content)
        self.dotenv.chmod(mode)

    def read_only(self, environment: dict[str, str]) -> Configuration:
        """What is found with an environment that has nothing else."""
        return settings.read(environment, self.secrets, self.dotenv)

    def read(self, **environment: str | None) -> Configuration:
        """What is found with the required settings in the environment, but for those given as None."""
        present = {name: value for name, value in {**REQUIRED, **environment}.items() if value is not None}
        return self.read_only(present)

    def value(self, name: str, text: str) -> Any:
        """The value that a valid text gives a setting."""
        configuration = self.read(**{name: text})
        assert configuration.problems == []
        assert configuration[name].source == "environment"
        return getattr(configuration.settings(), name.lower())

    def problem(self, **environment: str | None) -> str:
        """The only problem of a configuration."""
        (problem,) = self.read(**environment).problems
        return problem


def everything_shown(configuration: Configuration) -> str:
    """Everything that a configuration shows of itself."""
    shown = [configuration.shown(name) for name in NAMES]
    sources = [configuration[name].source for name in NAMES]
    return "\n".join([*configuration.problems, *configuration.warnings, *shown, *sources])
