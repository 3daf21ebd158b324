// Package remote reads and writes objects of S3 and what is compatible with it (s3://BUCKET/KEY), of
// Google Cloud Storage through its S3 interface (gs://BUCKET/KEY), and reads http:// and
// https:// addresses.
//
// Keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the files and services
// that AWS programs read; for Google Cloud Storage they are HMAC keys. AWS_REGION names
// the region and AWS_ENDPOINT_URL another server than Amazon's. Without keys requests are
// not signed, as public buckets take them.
//
// Every request ends: a server that cannot be reached is an error after some seconds, one
// that stops sending after two minutes without a byte.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"nac/internal/atomicfile"
)

// Is tells whether a name is an address that this package reads.
func Is(name string) bool {
	for _, scheme := range []string{"s3://", "gs://", "http://", "https://"} {
		if strings.HasPrefix(name, scheme) {
			return true
		}
	}
	return false
}

const (
	connectTime = 10 * time.Second
	headerTime  = 30 * time.Second
	silence     = 2 * time.Minute
	retries     = 3
)

// transport gives up on servers that do not answer.
var transport = sync.OnceValue(func() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: connectTime}).DialContext
	t.ResponseHeaderTimeout = headerTime
	t.MaxIdleConnsPerHost = 64
	return t
})

// address is where an object is.
type address struct{ scheme, bucket, key string }

func parse(name string) (a address, err error) {
	u, err := url.Parse(name)
	if err != nil {
		return a, err
	}
	// The key as it stands: an object may have % or ? in its name.
	key := strings.TrimPrefix(strings.TrimPrefix(name, u.Scheme+"://"+u.Host), "/")
	if a = (address{u.Scheme, u.Host, key}); a.bucket == "" {
		return a, fmt.Errorf("%s names no bucket", name)
	}
	return a, nil
}

var clients sync.Map // of func() (*minio.Client, error), by scheme

// client returns the one for a scheme.
func client(scheme string) (*minio.Client, error) {
	endpoint := os.Getenv("AWS_ENDPOINT_URL")
	if endpoint == "" {
		endpoint = "https://s3.amazonaws.com"
		if scheme == "gs" {
			endpoint = "https://storage.googleapis.com"
		}
	}
	made, _ := clients.LoadOrStore(scheme+" "+endpoint, sync.OnceValues(func() (*minio.Client, error) {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" {
			return nil, fmt.Errorf("AWS_ENDPOINT_URL: %q is no address of a server", endpoint)
		}
		keys := credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}})
		if _, err := keys.GetWithContext(&credentials.CredContext{Client: &http.Client{Transport: transport()}}); err != nil {
			keys = credentials.NewStatic("", "", "", credentials.SignatureAnonymous)
		}
		return minio.New(u.Host, &minio.Options{
			Creds: keys, Secure: u.Scheme == "https", Region: os.Getenv("AWS_REGION"), Transport: transport(), MaxRetries: retries,
		})
	}))
	return made.(func() (*minio.Client, error))()
}

// failed names the address in an error.
func failed(what, name string, err error) error {
	var e minio.ErrorResponse
	if errors.As(err, &e) && (e.Code == "NoSuchKey" || e.Code == "NoSuchBucket" || e.StatusCode == http.StatusNotFound) {
		err = fmt.Errorf("%w (%s)", fs.ErrNotExist, e.Code)
	}
	return fmt.Errorf("%s %s: %w", what, name, err)
}

// Open opens an object; its size is known.
func Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	a, err := parse(name)
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	r := &reader{cancel: cancel}
	r.timer = time.AfterFunc(silence, func() { cancel(fmt.Errorf("nothing came for %v", silence)) })
	fail := func(err error) (io.ReadCloser, int64, error) {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		r.Close()
		return nil, 0, failed("read", name, err)
	}
	if a.scheme == "http" || a.scheme == "https" {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, name, nil)
		if err != nil {
			return fail(err)
		}
		answer, err := (&http.Client{Transport: transport()}).Do(request)
		if err != nil {
			return fail(err)
		}
		r.body = answer.Body
		if answer.StatusCode != http.StatusOK {
			if answer.StatusCode == http.StatusNotFound {
				return fail(fs.ErrNotExist)
			}
			return fail(errors.New(answer.Status))
		}
		return r, answer.ContentLength, nil
	}
	c, err := client(a.scheme)
	if err != nil {
		return fail(err)
	}
	core := minio.Core{Client: c}
	body, info, _, err := core.GetObject(ctx, a.bucket, a.key, minio.GetObjectOptions{})
	if err != nil {
		return fail(err)
	}
	r.body = body
	return r, info.Size, nil
}

// reader ends a request that sends nothing.
type reader struct {
	body   io.ReadCloser
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func (r *reader) Read(p []byte) (int, error) {
	r.timer.Reset(silence)
	return r.body.Read(p)
}

func (r *reader) Close() error {
	r.timer.Stop()
	r.cancel(nil)
	if r.body != nil {
		return r.body.Close()
	}
	return nil
}

// Fetch copies an object to a file, which appears whole or not at all; of an address that
// ends in "/", or names no object but has some below it, it copies all below to a folder.
func Fetch(ctx context.Context, name, file string) error {
	r, size, err := Open(ctx, name)
	if errors.Is(err, fs.ErrNotExist) || strings.HasSuffix(name, "/") {
		if below, e := fetchBelow(ctx, name, file); below || e != nil {
			return e
		}
	}
	if err != nil {
		return err
	}
	defer r.Close()
	if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
		return err
	}
	return atomicfile.Write(file, func(w io.Writer) error {
		n, err := io.Copy(w, r)
		if err == nil && size >= 0 && n != size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return failed("read", name, err)
		}
		return nil
	})
}

// fetchBelow copies all objects below name, and tells whether there are any.
func fetchBelow(ctx context.Context, name, dir string) (any bool, err error) {
	a, err := parse(name)
	if err != nil || a.scheme == "http" || a.scheme == "https" {
		return false, err
	}
	c, err := client(a.scheme)
	if err != nil {
		return false, err
	}
	prefix := strings.TrimSuffix(a.key, "/") + "/"
	if prefix == "/" {
		prefix = ""
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for o := range c.ListObjects(ctx, a.bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if o.Err != nil {
			return any, failed("list", name, o.Err)
		}
		rel := filepath.FromSlash(strings.TrimPrefix(o.Key, prefix))
		if strings.HasSuffix(o.Key, "/") {
			continue
		}
		if !filepath.IsLocal(rel) {
			return any, fmt.Errorf("list %s: the object %q leads out of it", name, o.Key)
		}
		any = true
		if err := Fetch(ctx, fmt.Sprintf("%s://%s/%s", a.scheme, a.bucket, o.Key), filepath.Join(dir, rel)); err != nil {
			return any, err
		}
	}
	return any, nil
}

// Store copies a file to an object, or all files below a folder to objects below an
// address, but not those whose names begin with a dot. An object appears whole or not at all.
func Store(ctx context.Context, file, name string) error {
	a, err := parse(name)
	if err != nil {
		return err
	}
	if a.scheme == "http" || a.scheme == "https" {
		return fmt.Errorf("write %s: http addresses can only be read", name)
	}
	c, err := client(a.scheme)
	if err != nil {
		return err
	}
	return filepath.WalkDir(file, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		key := a.key
		if p != file {
			if strings.HasPrefix(d.Name(), ".") { // a lock, or half a file
				return nil
			}
			rel, err := filepath.Rel(file, p)
			if err != nil {
				return err
			}
			key = path.Join(a.key, filepath.ToSlash(rel))
		}
		if _, err := c.FPutObject(ctx, a.bucket, key, p, minio.PutObjectOptions{ContentType: "application/octet-stream"}); err != nil {
			return failed("write", fmt.Sprintf("%s://%s/%s", a.scheme, a.bucket, key), err)
		}
		return nil
	})
}

// FS opens remote names as this package does, and others in Local; its files are read
// once, from the beginning.
type FS struct {
	Context context.Context
	Local   fs.FS
}

var _ fs.StatFS = FS{}

// Open implements fs.FS.
func (f FS) Open(name string) (fs.File, error) {
	if !Is(name) {
		return f.Local.Open(name)
	}
	r, size, err := Open(f.Context, name)
	if err != nil {
		return nil, err
	}
	return &object{r, info{path.Base(name), size}}, nil
}

// Stat implements fs.StatFS.
func (f FS) Stat(name string) (fs.FileInfo, error) {
	if !Is(name) {
		return fs.Stat(f.Local, name)
	}
	a, err := parse(name)
	if err != nil {
		return nil, err
	}
	if a.scheme == "http" || a.scheme == "https" {
		r, size, err := Open(f.Context, name)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		if size < 0 {
			return nil, fmt.Errorf("read %s: the server does not say how large it is", name)
		}
		return info{path.Base(name), size}, nil
	}
	c, err := client(a.scheme)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(f.Context, silence)
	defer cancel()
	o, err := c.StatObject(ctx, a.bucket, a.key, minio.StatObjectOptions{})
	if err != nil {
		return nil, failed("read", name, err)
	}
	return info{path.Base(name), o.Size}, nil
}

type object struct {
	io.ReadCloser
	info info
}

func (o *object) Stat() (fs.FileInfo, error) { return o.info, nil }

type info struct {
	name string
	size int64
}

func (i info) Name() string     { return i.name }
func (i info) Size() int64      { return i.size }
func (info) Mode() fs.FileMode  { return 0o444 }
func (info) ModTime() time.Time { return time.Time{} }
func (info) IsDir() bool        { return false }
func (info) Sys() any           { return nil }
