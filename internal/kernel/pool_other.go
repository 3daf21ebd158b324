//go:build !amd64 || purego

package kernel

var machinePool, machineMax = pool, maximum
