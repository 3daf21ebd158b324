package download

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// permanentError is one that another attempt would not cure.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

func permanentf(format string, args ...any) error {
	return permanentError{fmt.Errorf(format, args...)}
}

// laterError asks to wait at least so long before the next attempt.
type laterError struct {
	error
	wait time.Duration
}

func (e laterError) Unwrap() error { return e.error }

// A run of failed attempts ends when one gets this much further.
const worthwhile = 64 << 10

// fetch transfers the item into p, going on where p ends. It returns when all
// bytes are there, attempts are used up, or another attempt would not help.
func (c *Client) fetch(ctx context.Context, it Item, p *part) error {
	defer p.close()
	best, failed := p.size, 0
	for !p.note.Done {
		err := c.attempt(ctx, it, p)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.As(err, new(permanentError)) {
			return err
		}
		failed++
		if p.size >= best+worthwhile {
			best, failed = p.size, 1
		}
		if failed >= c.attempts {
			return fmt.Errorf("given up after %d attempts: %w", failed, err)
		}
		wait := min(c.backoff<<min(failed-1, 10), maxBackoff)
		wait += rand.N(wait/2 + 1) // so that many clients do not come back at once
		if later := (laterError{}); errors.As(err, &later) {
			wait = max(wait, min(later.wait, maxBackoff))
		}
		c.progress.Retry(it.Name, err, wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
	return p.close()
}

const maxBackoff = 2 * time.Minute

// attempt makes one transfer of what p lacks.
func (c *Client) attempt(ctx context.Context, it Item, p *part) error {
	// Cancelled when a server sends nothing for too long, and in the end.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(c.idle, func() {
		cancel(fmt.Errorf("the server has sent nothing for %v", c.idle))
	})
	defer idle.Stop()
	explain := func(err error) error {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}

	resp, err := c.open(ctx, it, p)
	if err != nil {
		return explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		// Either all is there already or the file has changed.
		if _, total, ok := contentRange(resp); ok && total == p.size && total == p.note.Total {
			if err := p.begin(p.note, p.size); err != nil {
				return permanentError{err}
			}
			return c.finish(p)
		}
		if err := p.discard(); err != nil {
			return permanentError{err}
		}
		return errors.New("the server has another version of the file; starting again")
	}
	if err := c.accept(it, p, resp); err != nil {
		return err
	}
	c.progress.Begin("fetch", it.Name, p.size, p.note.Total)
	defer c.progress.End()
	buf := make([]byte, 256<<10)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			idle.Reset(c.idle)
			if _, werr := p.Write(buf[:n]); werr != nil {
				return permanentError{werr}
			}
			c.progress.Advance(int64(n))
			if p.note.Total < 0 && it.Bytes > 0 && p.size > it.Bytes {
				return errors.Join(permanentf("the server sends more than the %d bytes that were expected", it.Bytes), p.discard())
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return explain(fmt.Errorf("the transfer broke off at byte %d: %w", p.size, err))
		}
	}
	if p.note.Total >= 0 && p.size != p.note.Total {
		return fmt.Errorf("the transfer ended at byte %d of %d", p.size, p.note.Total)
	}
	return c.finish(p)
}

func (c *Client) finish(p *part) error {
	if err := p.finish(); err != nil {
		return permanentError{err}
	}
	return nil
}

// open asks for the item from p's end on and returns the answer that holds it, of
// status 200, 206 or 416. It goes through Google Drive's page if there is one.
func (c *Client) open(ctx context.Context, it Item, p *part) (*http.Response, error) {
	if it.Drive == "" {
		resp, err := c.get(ctx, it.URL, p)
		if err != nil {
			return nil, err
		}
		if isPage(resp) {
			resp.Body.Close()
			return nil, permanentf("%s sent a web page instead of the file", it.place())
		}
		return resp, nil
	}
	u, err := url.Parse(c.drive)
	if err != nil {
		return nil, permanentError{err}
	}
	u.RawQuery = url.Values{"export": {"download"}, "id": {it.Drive}}.Encode()
	address := u.String()
	// The first answer may be a page, of which no range is wanted.
	resp, err := c.get(ctx, address, nil)
	for pages := 0; ; pages++ {
		if err != nil {
			return nil, err
		}
		if !isPage(resp) {
			break
		}
		if pages == 2 {
			resp.Body.Close()
			return nil, permanentf("Google Drive asks for confirmation again and again")
		}
		next, perr := parseDrivePage(resp.Body, resp.Request.URL)
		resp.Body.Close()
		if perr != nil {
			return nil, perr
		}
		resp, err = c.get(ctx, next.String(), p)
	}
	if p.size > 0 && resp.StatusCode == http.StatusOK && resp.Request.Header.Get("Range") == "" {
		final := resp.Request.URL.String()
		resp.Body.Close()
		if resp, err = c.get(ctx, final, p); err != nil {
			return nil, err
		}
		if isPage(resp) {
			resp.Body.Close()
			return nil, errors.New("a web page came instead of a part of the file")
		}
	}
	return resp, nil
}

// get asks for an address, from p's end on if p is not nil. An answer of another
// status than 200, 206 or 416 is an error.
func (c *Client) get(ctx context.Context, address string, p *part) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, permanentError{err}
	}
	req.Header.Set("User-Agent", "nac")
	// Compressed bytes could not be counted, resumed or checked.
	req.Header.Set("Accept-Encoding", "identity")
	if p != nil && p.size > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", p.size))
		// A weak tag does not promise equal bytes.
		if tag := p.note.ETag; tag != "" && !strings.HasPrefix(tag, "W/") {
			req.Header.Set("If-Range", tag)
		} else if p.note.Modified != "" {
			req.Header.Set("If-Range", p.note.Modified)
		}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		// Not the address that package http adds: it may hold a token.
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err
		}
		if dns := (*net.DNSError)(nil); errors.As(err, &dns) && dns.IsNotFound {
			err = permanentError{err}
		}
		return nil, err
	}
	if e := resp.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		resp.Body.Close()
		return nil, permanentf("the server sends the file in the encoding %q, which was not asked for", e)
	}
	switch code := resp.StatusCode; {
	case code == http.StatusOK, code == http.StatusPartialContent && req.Header.Get("Range") != "",
		code == http.StatusRequestedRangeNotSatisfiable && req.Header.Get("Range") != "":
		return resp, nil
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code >= 500:
		resp.Body.Close()
		return nil, laterError{fmt.Errorf("the server answers %s", resp.Status), retryAfter(resp)}
	default:
		defer resp.Body.Close()
		if c.atDrive(resp.Request.URL) && isPage(resp) {
			if _, err := parseDrivePage(resp.Body, resp.Request.URL); err != nil && code != http.StatusNotFound {
				return nil, err
			}
		}
		return nil, permanentf("the server answers %s", resp.Status)
	}
}

// atDrive tells whether u is Google Drive's.
func (c *Client) atDrive(u *url.URL) bool {
	d, err := url.Parse(c.drive)
	return err == nil && driveHost(u.Host, d.Host)
}

func retryAfter(resp *http.Response) time.Duration {
	s := resp.Header.Get("Retry-After")
	if n, err := strconv.Atoi(s); err == nil {
		return time.Duration(min(max(n, 0), 3600)) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return time.Until(t)
	}
	return 0
}

// isPage tells whether the answer is a web page; nothing that is fetched is one.
func isPage(resp *http.Response) bool {
	t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return err == nil && (t == "text/html" || t == "application/xhtml+xml")
}

// contentRange returns the start (-1 if it has none) and the total (-1 if it is
// unknown) of a Content-Range header.
func contentRange(resp *http.Response) (start, total int64, ok bool) {
	span, size, found := strings.Cut(strings.TrimPrefix(resp.Header.Get("Content-Range"), "bytes "), "/")
	if !found {
		return 0, 0, false
	}
	start, total = -1, -1
	var err error
	if size != "*" {
		if total, err = strconv.ParseInt(size, 10, 64); err != nil || total < 0 {
			return 0, 0, false
		}
	}
	if span != "*" {
		first, _, _ := strings.Cut(span, "-")
		if start, err = strconv.ParseInt(first, 10, 64); err != nil || start < 0 {
			return 0, 0, false
		}
	}
	return start, total, true
}

// accept compares an answer with what is known and makes p ready for its body.
func (c *Client) accept(it Item, p *part, resp *http.Response) error {
	n := note{From: p.note.From, Total: resp.ContentLength, ETag: resp.Header.Get("ETag"), Modified: resp.Header.Get("Last-Modified")}
	n.CRC32C, n.MD5 = googleHashes(resp.Header)
	offset := int64(0)
	if resp.StatusCode == http.StatusPartialContent {
		start, total, ok := contentRange(resp)
		switch {
		case !ok || start != p.size:
			err := fmt.Errorf("the server sent another part of the file than byte %d on (Content-Range %q)", p.size, resp.Header.Get("Content-Range"))
			return errors.Join(err, p.discard())
		case total >= 0 && p.note.Total >= 0 && total != p.note.Total, n.ETag != "" && p.note.ETag != "" && n.ETag != p.note.ETag,
			n.Modified != "" && p.note.Modified != "" && n.Modified != p.note.Modified:
			return errors.Join(errors.New("the server has another version of the file; starting again"), p.discard())
		case total < 0 && resp.ContentLength >= 0:
			total = start + resp.ContentLength
		}
		offset, n.Total = start, total
		if n.ETag == "" {
			n.ETag = p.note.ETag
		}
		if n.Modified == "" {
			n.Modified = p.note.Modified
		}
		if n.CRC32C == "" && n.MD5 == "" {
			n.CRC32C, n.MD5 = p.note.CRC32C, p.note.MD5
		}
	}
	if it.Bytes > 0 && n.Total >= 0 && n.Total != it.Bytes {
		return permanentf("the server announces %d bytes, %d were expected", n.Total, it.Bytes)
	}
	if err := os.MkdirAll(filepath.Dir(p.path), 0o777); err != nil {
		return permanentError{err}
	}
	if err := needSpace(filepath.Dir(p.path), n.Total-p.size); err != nil {
		return permanentError{err}
	}
	if err := p.begin(n, offset); err != nil {
		return permanentError{err}
	}
	return nil
}
