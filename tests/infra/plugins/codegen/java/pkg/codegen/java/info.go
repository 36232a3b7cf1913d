// Package java stands in for Pulumi's generator of Java packages, which a running provider doesn't need.
package java

// PackageInfo is what the docker-build provider says of its Java package in its schema.
type PackageInfo struct {
	BuildFiles                      string            `json:"buildFiles,omitempty"`
	GradleNexusPublishPluginVersion string            `json:"gradleNexusPublishPluginVersion,omitempty"`
	Dependencies                    map[string]string `json:"dependencies,omitempty"`
}
