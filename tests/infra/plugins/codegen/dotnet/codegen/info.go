// Package codegen stands in for Pulumi's generator of .NET packages, which a running provider doesn't need.
package codegen

// CSharpPackageInfo is what the docker-build provider says of its .NET package in its schema.
type CSharpPackageInfo struct {
	RespectSchemaVersion bool              `json:"respectSchemaVersion,omitempty"`
	PackageReferences    map[string]string `json:"packageReferences,omitempty"`
}
