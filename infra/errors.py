"""Every error that the `atlas` command tells in a line instead of a traceback, and how a text becomes such a line."""

from collections.abc import Sequence

EXPIRED = (
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
)
"""What AWS answers to credentials that are no longer good."""
EXPIRED_LINE = (
    "the AWS credentials are no longer good (expired in the middle, or withdrawn): nothing is lost; log in again "
    "(`aws sso login`, or a new session of the role), and the same command goes on from here"
)


def one_line(text: object) -> str:
    """The text in a single line: every run of white space, line breaks included, becomes one space."""
    return " ".join(str(text).split())


def expired(text: str) -> bool:
    """Whether the text, of AWS or of the engine, says that the credentials are no longer good."""
    return any(code in text for code in EXPIRED)


class AtlasError(Exception):
    """The command can't go on; the message says what is wrong and what its reader can do about it."""

    @property
    def lines(self) -> list[str]:
        """What is printed, each with the command's name before it."""
        return str(self).splitlines()


class SettingsError(AtlasError, ValueError):
    """A setting, or an option of the command, can't be used; the message has one line per problem."""


class PreflightError(AtlasError):
    """Something that must hold before a stack is touched doesn't: a tool, who the caller is, where the stack is."""


class CredentialsError(AtlasError):
    """AWS credentials are missing, expired or another account's."""


class AwsError(AtlasError):
    """AWS refuses a request, or can't be asked."""


class ImageError(AtlasError):
    """An image can't be copied, or is not where it should be."""


class ConfirmationError(AtlasError):
    """The command must ask before it goes on, and nobody agreed."""


class EngineError(AtlasError):
    """The Pulumi engine can't be had; the message says what to install."""


class LockedError(AtlasError):
    """Another run holds the stack."""


class ClusterError(AtlasError):
    """The Kubernetes cluster can't be asked; the message says why."""


class LocalError(AtlasError):
    """Something can't be done on this machine; the message names the cause and the remedy."""


class StepError(AtlasError):
    """A step of CI, or a program that it runs, failed; the message is printed as it is."""

    @property
    def lines(self) -> list[str]:
        """The message whole, with that program's own lines in it."""
        return [str(self)]


class FailedError(AtlasError):
    """What was asked for was begun and failed, by what the engine reported or the service answered."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__(lines[0])
        self._lines = list(lines)

    @property
    def lines(self) -> list[str]:
        """What went wrong, one string per error; an error's own text may have several lines."""
        return self._lines
