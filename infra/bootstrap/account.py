"""What `atlas bootstrap` finds in the account: the caller, the state bucket, GitHub's identity provider."""

from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from infra.components.github_role import AUDIENCE, provider_arn
from infra.errors import AwsError, CredentialsError, PreflightError, one_line
from infra.names import BOOTSTRAP, PROJECT, PROJECT_TAG, STACK_TAG
from infra.settings import BootstrapSettings


@dataclass(frozen=True, slots=True)
class Found:
    """The account's state before bootstrap changes anything."""

    bucket: bool
    """The state bucket exists."""
    foreign_provider: bool
    """GitHub's identity provider exists, but bootstrap didn't create it: bootstrap uses it and doesn't change it."""


def look(settings: BootstrapSettings) -> Found:
    """Check the account, and find what exists.

    Raises CredentialsError when the credentials are missing or belong to another account, AwsError when AWS refuses or
    the bucket belongs to somebody else, PreflightError when the identity provider can't be used as it is.
    """
    try:
        _right_account(settings)
        return Found(bucket=_bucket(settings), foreign_provider=_foreign_provider(settings))
    except (BotoCoreError, ClientError) as error:
        raise AwsError(f"AWS refuses: {one_line(error)}") from None


def _right_account(settings: BootstrapSettings) -> None:
    try:
        account = boto3.client("sts", region_name=settings.region).get_caller_identity()["Account"]
    except (BotoCoreError, ClientError) as error:
        raise CredentialsError(
            f"AWS gives no identity ({one_line(error)}): log in (`aws sso login`, `aws configure`), or set AWS_PROFILE"
        ) from None
    if account != settings.account_id:
        raise CredentialsError(
            f"these credentials belong to account {account}, Pulumi.bootstrap.yaml says {settings.account_id} "
            "(atlas:accountId): use the right profile (AWS_PROFILE), or correct the file"
        )


def _bucket(settings: BootstrapSettings) -> bool:
    try:
        boto3.client("s3", region_name=settings.region).head_bucket(
            Bucket=settings.bucket, ExpectedBucketOwner=settings.account_id
        )
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status == 404:
            return False
        if status == 403:
            raise AwsError(
                f"the bucket {settings.bucket} belongs to another account, or these credentials have no access to it: "
                "choose another name (atlas:stateBucket), or use credentials with access"
            ) from None
        raise
    return True


def _foreign_provider(settings: BootstrapSettings) -> bool:
    client = boto3.client("iam", region_name=settings.region)
    try:
        provider: dict[str, Any] = client.get_open_id_connect_provider(
            OpenIDConnectProviderArn=provider_arn(settings.account_id)
        )
    except client.exceptions.NoSuchEntityException:
        return False
    tags = {tag["Key"]: tag["Value"] for tag in provider.get("Tags", [])}
    if tags.get(PROJECT_TAG) == PROJECT and tags.get(STACK_TAG) == BOOTSTRAP:
        return False
    if AUDIENCE not in provider["ClientIDList"]:
        raise PreflightError(
            f"the account's identity provider for GitHub doesn't accept the audience {AUDIENCE}: "
            "`aws iam add-client-id-to-open-id-connect-provider "
            f"--open-id-connect-provider-arn {provider_arn(settings.account_id)} --client-id {AUDIENCE}`"
        )
    return True
