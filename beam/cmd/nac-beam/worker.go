package main

import (
	"context"
	"slices"
	"strings"

	"github.com/apache/beam/sdks/v2/go/container/tools"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/util/grpcx"
)

// workerArgs turns the arguments with which a runner starts a process as a worker into
// those that the Go SDK reads. A runner that does not say where its services are is asked.
func workerArgs(ctx context.Context, args []string) ([]string, error) {
	value := func(name string) string {
		i := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, name) })
		if i < 0 {
			return ""
		}
		return strings.Trim(args[i][len(name):], "'") // Prism quotes
	}
	provision := value("--provision_endpoint=")
	if provision == "" {
		return args, nil
	}
	id, control, logging := value("--id="), value("--control_endpoint="), value("--logging_endpoint=")
	if control == "" || logging == "" {
		info, err := tools.ProvisionInfo(grpcx.WriteWorkerID(ctx, id), provision)
		if err != nil {
			return nil, err
		}
		control, logging = info.GetControlEndpoint().GetUrl(), info.GetLoggingEndpoint().GetUrl()
	}
	return []string{"--worker", "--id=" + id, "--control_endpoint=" + control, "--logging_endpoint=" + logging}, nil
}
