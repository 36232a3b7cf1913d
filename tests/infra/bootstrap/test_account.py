"""What bootstrap finds in an account; moto answers, but for what it can't play."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from moto import mock_aws

from infra.bootstrap.account import Found, look
from infra.components.github_role import AUDIENCE, GITHUB, provider_arn
from infra.errors import AwsError, CredentialsError
from infra.settings import BootstrapSettings

pytestmark = pytest.mark.slow

SETTINGS = BootstrapSettings(environment="bootstrap", account_id="123456789012", repository="repo:owner/name")


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        boto3.setup_default_session()
        yield
    boto3.DEFAULT_SESSION = None


def answer(call: str, status: int, text: str = "") -> None:
    """Let AWS answer this call so."""

    class Body:
        def stream(self, **_: Any) -> Iterator[bytes]:
            yield text.encode()

    def given(request: Any, **_: Any) -> AWSResponse:
        return AWSResponse(request.url, status, {}, Body())

    assert boto3.DEFAULT_SESSION is not None
    boto3.DEFAULT_SESSION.events.register_first(f"before-send.{call}", given)


def test_empty_account_has_neither_bucket_nor_provider() -> None:
    assert look(SETTINGS) == Found(bucket=False, foreign_provider=False)


def test_bucket_of_the_account_is_found() -> None:
    boto3.client("s3").create_bucket(Bucket=SETTINGS.bucket)
    assert look(SETTINGS).bucket


def test_bucket_of_somebody_else_is_told_with_the_remedy() -> None:
    answer("s3.HeadBucket", 403)
    with pytest.raises(AwsError, match=r"belongs to another account, .*: choose another name .atlas:stateBucket"):
        look(SETTINGS)


def test_own_provider_is_kept_and_foreign_one_adopted() -> None:
    def make(**tags: str) -> None:
        boto3.client("iam").create_open_id_connect_provider(
            Url=f"https://{GITHUB}",
            ClientIDList=[AUDIENCE],
            Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
        )

    make(project="atlas", stack="bootstrap")
    assert not look(SETTINGS).foreign_provider
    boto3.client("iam").delete_open_id_connect_provider(OpenIDConnectProviderArn=provider_arn("123456789012"))
    make(project="another")
    assert look(SETTINGS).foreign_provider


@pytest.mark.parametrize("call", ["s3.HeadBucket", "iam.GetOpenIDConnectProvider"])
def test_what_aws_refuses_is_one_line(call: str) -> None:
    answer(
        call, 400, "<ErrorResponse><Error><Code>ExpiredToken</Code><Message>too old</Message></Error></ErrorResponse>"
    )
    with pytest.raises(AwsError, match=r"^AWS refuses: [^\n]+$"):
        look(SETTINGS)


def test_expired_credentials_are_told_with_the_remedy() -> None:
    answer("sts.GetCallerIdentity", 403, "<ErrorResponse><Error><Code>ExpiredToken</Code></Error></ErrorResponse>")
    with pytest.raises(CredentialsError, match=r"AWS gives no identity .*ExpiredToken.*: log in"):
        look(SETTINGS)


def test_other_account_is_told() -> None:
    with pytest.raises(CredentialsError, match=r"belong to account 123456789012, .* says 210987654321"):
        look(SETTINGS.model_copy(update={"account_id": "210987654321"}))
