"""All errors that the `atlas` command reports as a line instead of a traceback, and helpers for such lines."""

from collections.abc import Sequence

EXPIRED = (
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
)
"""AWS's error codes for credentials that are no longer valid."""
EXPIRED_LINE = (
    "the AWS credentials are no longer valid (expired during the command, or revoked): nothing is lost; log in again "
    "(`aws sso login`, or a new session of the role), and the same command continues from here"
)


def one_line(text: object) -> str:
    """The text in a single line: every run of white space, line breaks included, becomes one space."""
    return " ".join(str(text).split())


def expired(text: str) -> bool:
    """Whether the text, from AWS or the engine, says that the credentials are no longer valid."""
    return any(code in text for code in EXPIRED)


class AtlasError(Exception):
    """The command can't continue; the message says what is wrong and what the reader can do about it."""

    @property
    def lines(self) -> list[str]:
        """The lines to print, each after the command's name."""
        return str(self).splitlines()


class SettingsError(AtlasError, ValueError):
    """A setting, or an option of the command, can't be used; the message has one line per problem."""


class PreflightError(AtlasError):
    """A precondition for working on a stack isn't met: a tool is missing, or the caller or the zones are wrong."""


class CredentialsError(AtlasError):
    """AWS credentials are missing or expired, or belong to another account."""


class AwsError(AtlasError):
    """AWS refuses a request, or can't be asked."""


class ImageError(AtlasError):
    """An image can't be copied, or isn't in the repository where it should be."""


class ConfirmationError(AtlasError):
    """The command needs a confirmation, and nobody gave it."""


class EngineError(AtlasError):
    """The Pulumi engine can't be installed or started; the message says what to do."""


class ToolError(AtlasError):
    """A tool can't be downloaded or built; the message says why."""


class LockedError(AtlasError):
    """Another run holds the stack's lock."""


class ClusterError(AtlasError):
    """The Kubernetes cluster can't be asked; the message says why."""


class LocalError(AtlasError):
    """Something can't be done on this machine; the message names the cause and the remedy."""


class StepError(AtlasError):
    """A step of CI, or a program that it runs, failed; the message is printed as it is."""

    @property
    def lines(self) -> list[str]:
        """The whole message, including the program's own lines."""
        return [str(self)]


class FailedError(AtlasError):
    """The operation started and failed; the lines come from the engine, or from the check of the service."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__(lines[0])
        self._lines = list(lines)

    @property
    def lines(self) -> list[str]:
        """What went wrong, one string per error; an error's own text may have several lines."""
        return self._lines
