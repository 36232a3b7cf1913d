"""How long the AWS program takes to evaluate, without the engine: imports, and declaring everything, on Pulumi's mocks.

`python tests/benchmarks/program.py`: a fresh process each time, the best of five, in CPU seconds (machines are noisy).
The aim is 3 s; what an SDK costs just to import is shown beside, as the limit.
"""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
EVALUATE = """
import json, time
import pulumi
from pulumi.runtime import config, mocks
from tests.infra.support.aws import BASE

class Quiet(mocks.Mocks):
    def new_resource(self, args):
        if args.typ == "aws:ebs/volume:Volume":
            return "vol-0123456789abcdef0", args.inputs
        return args.name, {"arn": "arn:aws:s3:::x", "bucket": "x", "name": "x", **args.inputs}
    def call(self, args):
        return {"insecureValue": "ami-1"}, []

begun = time.process_time()
mocks.set_mocks(Quiet(), project="atlas", stack="dev", preview=True)
config.set_all_config({f"atlas:{key}": value for key, value in BASE.items()})
from infra.program import program
try:
    pulumi.runtime.test(program)()
except Exception as error:
    if "transforms" not in str(error):  # the one thing that mocks can't do
        raise
print(time.process_time() - begun)
"""
LIMIT = """
import time
begun = time.process_time()
import pulumi_aws, pulumi_eks, pulumi_kubernetes
pulumi_aws.ec2.Vpc, pulumi_aws.s3.Bucket, pulumi_eks.Cluster, pulumi_kubernetes.apps.v1.Deployment
print(time.process_time() - begun)
"""


def best(code: str) -> float:
    """CPU seconds of the fastest of five fresh processes."""
    runs = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(5)
    ]
    return min(float(run.split()[-1]) for run in runs)


if __name__ == "__main__":
    whole, limit = best(EVALUATE), best(LIMIT)
    print(f"evaluating the program   {whole:.2f} s")
    print(f"importing the SDKs alone {limit:.2f} s ({limit / whole:.0%} of it)")
