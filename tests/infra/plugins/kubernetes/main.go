// Starts Pulumi's own Kubernetes provider. Its own main embeds generated files that its Go module doesn't contain.
package main

import "github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/provider"

var version = "set by the build"

func main() {
	// Programs get types and documentation from the schema, but the engine's operations on resources don't need it.
	provider.Serve("kubernetes", version, []byte(`{"name": "kubernetes"}`), nil)
}
