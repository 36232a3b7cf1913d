"""The two monitoring hosts: what cloud-init makes of a bare Ubuntu."""
