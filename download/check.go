package download

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"strings"
)

// corruptError is about bytes that are not the file that was asked for; fetching
// them again may help.
type corruptError struct{ error }

func (e corruptError) Unwrap() error { return e.error }

func corruptf(format string, args ...any) error {
	return corruptError{fmt.Errorf(format, args...)}
}

// googleHashes returns the base64 checksums of an X-Goog-Hash header.
func googleHashes(h http.Header) (crc32c, md5 string) {
	for _, line := range h.Values("X-Goog-Hash") {
		for field := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
			switch name {
			case "crc32c":
				crc32c = value
			case "md5":
				md5 = value
			}
		}
	}
	return crc32c, md5
}

// verify compares the file with its size and every checksum that is known: the
// item's and the server's.
func (c *Client) verify(ctx context.Context, it Item, n note, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if it.Bytes > 0 && info.Size() != it.Bytes {
		return corruptf("%s has %d bytes, %d were expected", it.file(), info.Size(), it.Bytes)
	}

	type check struct {
		name, want string
		hash       hash.Hash
		encode     func([]byte) string
	}
	var checks []check
	var all []io.Writer
	add := func(name, want string, h hash.Hash, encode func([]byte) string) {
		if want != "" {
			checks = append(checks, check{name, want, h, encode})
			all = append(all, h)
		}
	}
	add("SHA-256", it.SHA256, sha256.New(), hex.EncodeToString)
	add("MD5", it.MD5, md5.New(), hex.EncodeToString)
	add("MD5 (of the server)", n.MD5, md5.New(), base64.StdEncoding.EncodeToString)
	add("CRC32C (of the server)", n.CRC32C, crc32.New(crc32.MakeTable(crc32.Castagnoli)), base64.StdEncoding.EncodeToString)
	if len(checks) == 0 {
		return nil
	}
	c.progress.Begin("check", it.Name, 0, info.Size())
	defer c.progress.End()
	all = append(all, advance(c.progress.Advance))
	if _, err := io.CopyBuffer(io.MultiWriter(all...), &ctxReader{ctx, f}, make([]byte, 1<<20)); err != nil {
		return err
	}
	var errs []error
	for _, k := range checks {
		got := k.encode(k.hash.Sum(nil))
		// The item's may be the first digits alone.
		if !strings.HasPrefix(got, k.want) {
			errs = append(errs, corruptf("%s: the %s is %s, %s was expected", it.file(), k.name, got[:min(len(got), max(len(k.want), 8))], k.want))
		}
	}
	return errors.Join(errs...)
}

// advance counts what is written.
type advance func(bytes int64)

func (a advance) Write(b []byte) (int, error) {
	a(int64(len(b)))
	return len(b), nil
}

// ctxReader ends with the context.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *ctxReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}
