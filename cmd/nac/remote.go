package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"nac/remote"
)

// remoteOutputs are the flags that name what a command writes, and remoteRoots those that
// stay as they are: images are read one by one from there.
var (
	remoteOutputs = []string{"--out", "-o", "--cache"}
	remoteRoots   = []string{"--root"}
)

// staged is a copy of remote files for a command that knows files alone.
type staged struct {
	dir     string
	outputs map[string]string // local name to address
}

// stage copies inputs that are addresses, and returns the arguments with local names in
// their place. What is there already of a shard or cache is copied too, so that it is not
// done again.
func stage(ctx context.Context, args []string) (local []string, s *staged, err error) {
	s = &staged{outputs: map[string]string{}}
	local = slices.Clone(args)
	isShard := slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--shard") })
	for i, arg := range args {
		flag, value := "", arg
		if strings.HasPrefix(arg, "--") {
			if name, v, ok := strings.Cut(arg, "="); ok {
				flag, value = name, v
			}
		} else if i > 0 && strings.HasPrefix(args[i-1], "-") && !strings.Contains(args[i-1], "=") {
			flag = args[i-1]
		}
		if !remote.Is(value) || slices.Contains(remoteRoots, flag) {
			continue
		}
		if s.dir == "" {
			if s.dir, err = os.MkdirTemp("", "nac-remote-"); err != nil {
				return nil, s, err
			}
		}
		to := filepath.Join(s.dir, fmt.Sprint(i), path.Base(value))
		if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
			return nil, s, err
		}
		if slices.Contains(remoteOutputs, flag) {
			s.outputs[to] = value
			if err := s.takeUp(ctx, value, to, isShard || flag == "--cache"); err != nil {
				return nil, s, err
			}
		} else if err := remote.Fetch(ctx, value, to); err != nil {
			return nil, s, err
		}
		local[i] = strings.TrimSuffix(arg, value) + to
	}
	return local, s, nil
}

// takeUp finds out whether an output can be written, before hours of work, and copies what
// is there.
func (s *staged) takeUp(ctx context.Context, address, to string, copied bool) error {
	var err error
	if copied {
		err = remote.Fetch(ctx, address, to)
	} else {
		_, err = remote.FS{Context: ctx}.Stat(address)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// store copies what was written.
func (s *staged) store(ctx context.Context) error {
	for file, address := range s.outputs {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := remote.Store(ctx, file, address); err != nil {
			return err
		}
	}
	return nil
}

func (s *staged) remove() {
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}
