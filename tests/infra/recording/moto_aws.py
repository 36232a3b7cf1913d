"""The recording provider for AWS that makes what `atlas bootstrap` then uses, bucket and key, in moto's server too."""

from contextlib import suppress
from typing import Any

import boto3

from tests.infra.recording.provider import Recorder, plain, serve, token_of


class MotoRecorder(Recorder):
    """As Recorder; what it makes of these types, and deletes, moto has too."""

    def _made(self, token: str, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        identifier, outputs = super()._made(token, name, inputs)
        match token.rsplit(":", 1)[-1]:
            case "Bucket":
                boto3.client("s3").create_bucket(Bucket=inputs["bucket"])
            case "BucketVersioning":
                boto3.client("s3").put_bucket_versioning(
                    Bucket=inputs["bucket"], VersioningConfiguration={"Status": "Enabled"}
                )
            case "Key":
                made = boto3.client("kms").create_key()["KeyMetadata"]
                identifier = made["KeyId"]
                outputs |= {"keyId": identifier, "arn": made["Arn"]}
            case "Alias":
                boto3.client("kms").create_alias(AliasName=inputs["name"], TargetKeyId=inputs["targetKeyId"])
            case "OpenIdConnectProvider":
                made = boto3.client("iam").create_open_id_connect_provider(
                    Url=inputs["url"],
                    ClientIDList=inputs["clientIdLists"],
                    Tags=[{"Key": key, "Value": value} for key, value in inputs["tags"].items()],
                )
                identifier = made["OpenIDConnectProviderArn"]
                outputs |= {"arn": identifier}
            case _:
                pass
        return identifier, outputs

    def Delete(self, request: Any, context: Any) -> Any:
        done = super().Delete(request, context)
        inputs = plain(request.old_inputs)
        match token_of(request.urn).rsplit(":", 1)[-1]:
            case "Bucket":
                if inputs.get("forceDestroy"):
                    _emptied(request.id)
                boto3.client("s3").delete_bucket(Bucket=request.id)
            case "Repository":
                # Tests put images' names into moto's.
                with suppress(boto3.client("ecr").exceptions.RepositoryNotFoundException):
                    boto3.client("ecr").delete_repository(repositoryName=request.id, force=True)
            case "Key":
                boto3.client("kms").schedule_key_deletion(
                    KeyId=request.id, PendingWindowInDays=inputs["deletionWindowInDays"]
                )
            case "Alias":
                boto3.client("kms").delete_alias(AliasName=inputs["name"])
            case "OpenIdConnectProvider":
                boto3.client("iam").delete_open_id_connect_provider(OpenIDConnectProviderArn=request.id)
            case _:
                pass
        return done


def _emptied(bucket: str) -> None:
    """Every version, by pages of the first thousand: moto's later pages begin where something was deleted."""
    client = boto3.client("s3")
    for _ in range(100):
        page = client.list_object_versions(Bucket=bucket)
        found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        if not found:
            return
        named = [{"Key": version["Key"], "VersionId": version["VersionId"]} for version in found]
        client.delete_objects(Bucket=bucket, Delete={"Objects": named, "Quiet": True})


if __name__ == "__main__":
    serve(MotoRecorder("aws"))
