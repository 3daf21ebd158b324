package serve

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math"
	"math/big"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nac"
	"nac/drift"
	"nac/imageset"
	"nac/quickstart"
)

// fitted is a detector of the embedded network, made once: its folder.
var fitted = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "nac-serve-test-")
	if err != nil {
		return "", err
	}
	if err := quickstart.Extract(dir); err != nil {
		return "", err
	}
	m, err := model(dir)
	if err != nil {
		return "", err
	}
	o := nac.FitOptions{Transform: imageset.Transform{Resize: 32, Crop: 32}, Images: 300}
	for c := range 3 {
		o.Transform.Mean[c], o.Transform.Std[c] = quickstart.Mean, quickstart.Std
	}
	list, err := images(dir, "main_train_fashion")
	if err != nil {
		return "", err
	}
	if o.Calibration, err = images(dir, "val_fashion"); err != nil {
		return "", err
	}
	d, err := nac.Fit(context.Background(), m, list, o)
	if err != nil {
		return "", err
	}
	return dir, d.Save(filepath.Join(dir, "fashion.nac"))
})

func model(dir string) (*nac.Model, error) {
	return nac.Open(filepath.Join(dir, quickstart.Checkpoint), quickstart.Arch)
}

func images(dir, name string) (imageset.List, error) {
	return imageset.ReadList(filepath.Join(dir, "benchmark_imglist", quickstart.Benchmark, name+".txt"), filepath.Join(dir, "images_classic"))
}

func source(dir string) Source {
	path := filepath.Join(dir, "fashion.nac")
	return Source{Name: "fashion", Path: path, Open: func() (*nac.Detector, error) {
		m, err := model(dir)
		if err != nil {
			return nil, err
		}
		return nac.Load(path, m)
	}}
}

func TestMain(m *testing.M) {
	if dir := os.Getenv("NAC_SERVE_CHILD"); dir != "" {
		child(dir)
		return
	}
	code := m.Run()
	if dir, err := fitted(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

func folder(t testing.TB) string {
	t.Helper()
	dir, err := fitted()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// start serves over a real connection.
func start(t testing.TB, o Options) (*Server, string) {
	t.Helper()
	s, address, end := serving(t, o, source(folder(t)))
	t.Cleanup(end)
	return s, "http://" + address
}

// serving serves sources until end is called, which must find no request failed.
func serving(t testing.TB, o Options, sources ...Source) (s *Server, address string, end func()) {
	t.Helper()
	s, err := New(sources, o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	return s, l.Addr().String(), func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func testFiles(t testing.TB, name string, n int) (paths []string, files [][]byte) {
	t.Helper()
	list, err := images(folder(t), name)
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range list.Items[:n] {
		data, err := os.ReadFile(item.Path)
		if err != nil {
			t.Fatal(err)
		}
		paths, files = append(paths, item.Path), append(files, data)
	}
	return paths, files
}

func post(t testing.TB, url, media string, body []byte, header ...string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequest("POST", url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if media != "" {
		r.Header.Set("Content-Type", media)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	answer, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a, answer
}

// Every way in must give what the library gives for the same file.
func TestScore(t *testing.T) {
	_, url := start(t, Options{})
	m, err := model(folder(t))
	if err != nil {
		t.Fatal(err)
	}
	d, err := nac.Load(filepath.Join(folder(t), "fashion.nac"), m)
	if err != nil {
		t.Fatal(err)
	}
	paths, files := testFiles(t, "test_fashion", 5)
	want := make([]nac.Result, len(paths))
	for i, p := range paths {
		if want[i], err = d.ScoreFile(context.Background(), p); err != nil {
			t.Fatal(err)
		}
	}
	decode := func(text []byte, v any) {
		t.Helper()
		if err := json.Unmarshal(text, v); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	check := func(what string, got, want nac.Result) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}

	var one scored
	_, text := post(t, url+"/score/fashion", "image/png", files[0])
	decode(text, &one)
	check("body", one.Result, want[0])

	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	for i, f := range files {
		p, err := w.CreateFormFile("image", filepath.Base(paths[i]))
		if err != nil {
			t.Fatal(err)
		}
		p.Write(f)
	}
	w.Close()
	var many struct{ Results []scored }
	_, text = post(t, url+"/score", w.FormDataContentType(), form.Bytes())
	decode(text, &many)
	if len(many.Results) != len(files) {
		t.Fatalf("multipart: %s", text)
	}
	for i, r := range many.Results {
		check("multipart", r.Result, want[i])
	}

	a, text := post(t, url+"/score", "image/png", files[1], "ce-specversion", "1.0", "ce-id", "7", "ce-source", "/camera", "ce-type", "photo")
	decode(text, &one)
	check("binary event", one.Result, want[1])
	if a.Header.Get("Ce-Type") != resultType || a.Header.Get("Ce-Id") != "7" {
		t.Errorf("binary event: headers %v", a.Header)
	}

	body, _ := json.Marshal(event{SpecVersion: "1.0", ID: "8", Source: "/camera", Type: "photo", DataBase64: files[2]})
	var e event
	_, text = post(t, url+"/score", "application/cloudevents+json", body)
	decode(text, &e)
	decode(e.Data, &one)
	check("structured event", one.Result, want[2])

	// Tensors, as JSON and binary.
	size := 3 * 32 * 32
	tensor := make([]float32, 2*size)
	for i := range 2 {
		img, err := imageset.DecodeBytes("", files[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Info().Transform.Apply(img, tensor[i*size:(i+1)*size]); err != nil {
			t.Fatal(err)
		}
	}
	numbers, _ := json.Marshal(tensor)
	var reply inferResponse
	_, text = post(t, url+"/v2/models/fashion/infer", "application/json",
		fmt.Appendf(nil, `{"id":"x","inputs":[{"name":"images","datatype":"FP32","shape":[2,3,32,32],"data":[%s]}],"outputs":[{"name":"score"}]}`, numbers))
	decode(text, &reply)
	if reply.ID != "x" || len(reply.Outputs) != 1 || reply.Outputs[0].Data.([]any)[1] != want[1].Score {
		t.Errorf("tensor: %s, want %v", text, want[1].Score)
	}
	raw := []byte{}
	for _, x := range tensor {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	header := fmt.Appendf(nil, `{"parameters":{"binary_data_output":true},"inputs":[{"name":"images","datatype":"FP32","shape":[2,3,32,32],"parameters":{"binary_data_size":%d}}]}`, len(raw))
	a, text = post(t, url+"/v2/models/fashion/versions/1/infer", "application/octet-stream", append(header, raw...),
		"Inference-Header-Content-Length", fmt.Sprint(len(header)))
	var n int
	fmt.Sscan(a.Header.Get("Inference-Header-Content-Length"), &n)
	if n == 0 {
		t.Fatalf("binary: %d %s", a.StatusCode, text)
	}
	if got := math.Float64frombits(binary.LittleEndian.Uint64(text[n+8:])); got != want[1].Score {
		t.Errorf("binary tensor: score %v, want %v", got, want[1].Score)
	}

	raw = raw[:0]
	for _, f := range files[:3] {
		raw = append(binary.LittleEndian.AppendUint32(raw, uint32(len(f))), f...)
	}
	header = fmt.Appendf(nil, `{"inputs":[{"name":"encoded","datatype":"BYTES","shape":[3],"parameters":{"binary_data_size":%d}}]}`, len(raw))
	_, text = post(t, url+"/v2/models/fashion/infer", "", append(header, raw...), "Inference-Header-Content-Length", fmt.Sprint(len(header)))
	decode(text, &reply)
	if got := reply.Outputs[0].Data.([]any)[2]; got != want[2].Score {
		t.Errorf("encoded: %s, want %v", text, want[2].Score)
	}
	for _, path := range []string{"/", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/fashion", "/v2/models/fashion/ready", "/metrics", "/drift", "/detectors", "/openapi.json"} {
		a, err := http.Get(url + path)
		if err != nil || a.StatusCode != 200 {
			t.Fatal(path, a, err)
		}
		text, _ := io.ReadAll(a.Body)
		a.Body.Close()
		if path == "/metrics" && !strings.Contains(string(text), `nac_verdicts_total{detector="fashion",verdict="id"}`) {
			t.Errorf("metrics: %s", text)
		}
		if path == "/openapi.json" && !json.Valid(text) {
			t.Error("the OpenAPI file is not JSON")
		}
	}
}

// bomb is a PNG of few bytes that tells of width x height pixels.
func bomb(width, height uint32) []byte {
	b := []byte("\x89PNG\r\n\x1a\n")
	chunk := func(kind string, data []byte) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
		body := append([]byte(kind), data...)
		b = append(b, body...)
		b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(body))
	}
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, width), height)
	chunk("IHDR", append(head, 8, 2, 0, 0, 0))
	chunk("IDAT", bytes.Repeat([]byte{0}, 64))
	chunk("IEND", nil)
	return b
}

// 10,000 requests of every bad kind get the right status, and a good one in between
// is answered.
func TestHostile(t *testing.T) {
	t.Parallel() // it waits most of the time
	s, url := start(t, Options{MaxBody: 1 << 20, MaxPixels: 1 << 20, Timeout: 3 * time.Second})
	_, files := testFiles(t, "test_fashion", 1)
	infer := url + "/v2/models/fashion/infer"
	type request struct {
		name, url, media string
		body             []byte
		header           []string
		want             int
	}
	tensor := func(shape, data string) []byte {
		return fmt.Appendf(nil, `{"inputs":[{"name":"images","datatype":"FP32","shape":%s,"data":%s}]}`, shape, data)
	}
	kinds := []request{
		{"good", url + "/score", "image/png", files[0], nil, 200},
		{"broken JSON", infer, "application/json", []byte(`{"inputs":[`), nil, 400},
		{"deep JSON", infer, "application/json", bytes.Repeat([]byte("["), 100_000), nil, 400},
		{"no inputs", infer, "application/json", []byte(`{}`), nil, 400},
		{"wrong shape", infer, "application/json", tensor("[1,3,31,32]", "[0]"), nil, 400},
		{"negative shape", infer, "application/json", tensor("[-1,3,32,32]", "[0]"), nil, 400},
		{"vast shape", infer, "application/json", tensor("[4611686018427387904,3,32,32]", "[0]"), nil, 400},
		{"few values", infer, "application/json", tensor("[1,3,32,32]", "[0,1,2]"), nil, 400},
		{"words for values", infer, "application/json", tensor("[1,3,32,32]", `["a"]`), nil, 400},
		{"infinite value", infer, "application/json", tensor("[1,3,32,32]", "[1e99]"), nil, 400},
		{"binary cut off", infer, "", []byte(`{"inputs":[{"name":"encoded","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":4}}]}` + "\xff\xff\xff\xff"), []string{"Inference-Header-Content-Length", "101"}, 400},
		{"header length", infer, "", []byte("{}"), []string{"Inference-Header-Content-Length", "99999999999999999999"}, 400},
		{"no such detector", url + "/v2/models/nobody/infer", "", []byte("{}"), nil, 404},
		{"no such place", url + "/nowhere", "", nil, nil, 404},
		{"huge header", url + "/score", "image/png", files[0], []string{"X-Huge", strings.Repeat("x", 64<<10)}, 431},
		{"huge body", url + "/score", "image/png", make([]byte, 1<<20+1), nil, 413},
		{"bomb", url + "/score", "image/png", bomb(65535, 65535), nil, 413},
		{"cut image", url + "/score", "image/png", files[0][:len(files[0])/2], nil, 422},
		{"no image", url + "/score", "", []byte("hello"), nil, 422},
		{"empty", url + "/score", "", nil, nil, 400},
		{"gzip", url + "/score", "image/png", files[0], []string{"Content-Encoding", "gzip"}, 415},
		{"broken multipart", url + "/score", "multipart/form-data; boundary=x", []byte("--x\r\nhello"), nil, 400},
		{"no boundary", url + "/score", "multipart/form-data", []byte("hello"), nil, 400},
		{"bad event", url + "/score", "application/cloudevents+json", []byte(`{"specversion":"0.3"}`), nil, 400},
		{"event batch", url + "/score", "application/cloudevents-batch+json", []byte(`[]`), nil, 415},
	}
	// Slow clients all the while: each gets 408 (400 from net/http for a header that is
	// not whole) and a closed connection, and must not keep the others from being answered.
	address := strings.TrimPrefix(url, "http://")
	var slow sync.WaitGroup
	for i := range 100 {
		slow.Go(func() {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if i%2 == 0 {
				fmt.Fprint(c, "POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
			} else {
				fmt.Fprint(c, "POST /score HTTP/1.1\r\nHost: x\r\nX-A")
			}
			c.SetReadDeadline(time.Now().Add(20 * time.Second))
			a, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err == nil && a.StatusCode != 408-8*(i%2) {
				t.Errorf("a slow client got %d", a.StatusCode)
			}
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Error("a slow client is still connected")
			}
		})
	}
	const requests = 10_000
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range 64 { // net/http holds a connection that it has refused to read from for half a second
		workers.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= requests {
					return
				}
				k := kinds[i%int64(len(kinds))]
				r, _ := http.NewRequest("POST", k.url, bytes.NewReader(k.body))
				if k.media != "" {
					r.Header.Set("Content-Type", k.media)
				}
				for j := 0; j < len(k.header); j += 2 {
					r.Header.Set(k.header[j], k.header[j+1])
				}
				a, err := client.Do(r)
				if err != nil {
					// The server may close before a body or header that it refuses was sent.
					if k.want != 413 && k.want != 431 {
						t.Errorf("%s: %v", k.name, err)
					}
					continue
				}
				io.Copy(io.Discard, a.Body)
				a.Body.Close()
				if a.StatusCode != k.want {
					t.Errorf("%s: %d, want %d", k.name, a.StatusCode, k.want)
				}
			}
		})
	}
	workers.Wait()
	slow.Wait()
	if s.images.Load() != 0 || s.memory.Load() != 0 {
		t.Errorf("%d places and %d bytes were not given back", s.images.Load(), s.memory.Load())
	}
}

func TestBusy(t *testing.T) {
	s, url := start(t, Options{MaxQueue: 2})
	_, files := testFiles(t, "test_fashion", 1)
	leave, err := s.admit(2)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := post(t, url+"/score", "image/png", files[0])
	if a.StatusCode != 429 || a.Header.Get("Retry-After") == "" {
		t.Errorf("busy: %d, Retry-After %q", a.StatusCode, a.Header.Get("Retry-After"))
	}
	leave()
	if a, text := post(t, url+"/score", "image/png", files[0]); a.StatusCode != 200 {
		t.Errorf("after: %d %s", a.StatusCode, text)
	}
}

func TestKey(t *testing.T) {
	_, url := start(t, Options{APIKey: "sesame"})
	_, files := testFiles(t, "test_fashion", 1)
	for _, c := range []struct {
		name, value string
		want        int
	}{{"X-Other", "", 401}, {"X-API-Key", "sesam", 401}, {"X-API-Key", "sesame", 200}, {"Authorization", "Bearer sesame", 200}} {
		if a, _ := post(t, url+"/score", "image/png", files[0], c.name, c.value); a.StatusCode != c.want {
			t.Errorf("%s %q: %d, want %d", c.name, c.value, a.StatusCode, c.want)
		}
	}
	if a, err := http.Get(url + "/v2/health/live"); err != nil || a.StatusCode != 200 {
		t.Error("health asks for a key")
	}
}

// certify makes a certificate of 127.0.0.1 that signs itself.
func certify(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name, kind string, data []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, key = put("cert.pem", "CERTIFICATE", der), put("key.pem", "PRIVATE KEY", secret)
	pool = x509.NewCertPool()
	text, err := os.ReadFile(cert)
	if err != nil || !pool.AppendCertsFromPEM(text) {
		t.Fatal("no certificate", err)
	}
	return cert, key, pool
}

func TestTLS(t *testing.T) {
	cert, key, pool := certify(t)
	if _, err := New([]Source{source(folder(t))}, Options{CertFile: cert}); err == nil {
		t.Error("a certificate without its key was taken")
	}
	_, url := start(t, Options{CertFile: cert, KeyFile: key})
	_, files := testFiles(t, "test_fashion", 1)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	a, err := client.Post(strings.Replace(url, "http:", "https:", 1)+"/score", "image/png", bytes.NewReader(files[0]))
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if a.StatusCode != 200 || a.TLS == nil || a.TLS.Version < tls.VersionTLS12 {
		t.Errorf("TLS: %d, %+v", a.StatusCode, a.TLS)
	}
	if a, err := http.Post(url+"/score", "image/png", bytes.NewReader(files[0])); err == nil {
		a.Body.Close()
		if a.StatusCode == 200 {
			t.Error("answered without TLS")
		}
	}
}

// Two detectors of one server have results, drift tests and metrics of their own.
func TestSeveral(t *testing.T) {
	first := source(folder(t))
	second := Source{Name: "strict", Open: func() (*nac.Detector, error) {
		d, err := first.Open()
		if err != nil {
			return nil, err
		}
		return d.WithRate(0.5)
	}}
	s, address, end := serving(t, Options{Store: filepath.Join(t.TempDir(), "state")}, first, second)
	defer end()
	_, files := testFiles(t, "test_fashion", 40)
	ood := map[string]int{}
	for _, f := range files {
		for path, name := range map[string]string{"/score": "fashion", "/score/fashion": "fashion", "/score/strict": "strict"} {
			var r scored
			_, text := post(t, "http://"+address+path, "image/png", f)
			if err := json.Unmarshal(text, &r); err != nil || r.Detector != name {
				t.Fatalf("%s: %s", path, text)
			}
			if path != "/score" && r.OOD {
				ood[name]++
			}
		}
	}
	if ood["strict"] <= ood["fashion"] {
		t.Errorf("OOD of %d images: %v", len(files), ood)
	}
	for name, images := range map[string]int64{"fashion": 80, "strict": 40} {
		if r := s.detectors[name].report(); r.Images != images {
			t.Errorf("%s saw %d images", name, r.Images)
		}
		if a, err := http.Get("http://" + address + "/v2/models/" + name + "/ready"); err != nil || a.StatusCode != 200 {
			t.Errorf("%s is not ready", name)
		}
	}
	if a, text := post(t, "http://"+address+"/score/nobody", "image/png", files[0]); a.StatusCode != 404 {
		t.Errorf("nobody: %d %s", a.StatusCode, text)
	}
	if _, err := New([]Source{first, first}, Options{}); err == nil {
		t.Error("two detectors of one name were taken")
	}
}

// Requests that run when the server is told to end are answered, and a new one is not.
func TestDrain(t *testing.T) {
	s, address, end := serving(t, Options{}, source(folder(t)))
	_, files := testFiles(t, "test_fashion", 8)
	for range cap(s.decoding) { // so that requests stay where they are
		s.decoding <- struct{}{}
	}
	var running, over sync.WaitGroup
	for _, f := range files {
		running.Go(func() {
			if a, text := post(t, "http://"+address+"/score", "image/png", f); a.StatusCode != 200 {
				t.Errorf("in flight: %d %s", a.StatusCode, text)
			}
		})
	}
	for s.images.Load() != int64(len(files)) {
		time.Sleep(time.Millisecond)
	}
	over.Go(end)
	for {
		c, err := net.Dial("tcp", address)
		if err != nil {
			break // the server listens no more
		}
		c.Close()
		time.Sleep(time.Millisecond)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/v2/health/ready", nil))
	if w.Code != 503 {
		t.Errorf("ready while draining: %d", w.Code)
	}
	for range cap(s.decoding) {
		<-s.decoding
	}
	running.Wait()
	over.Wait()
}

// A file that is written again and again under load: no request fails, and a broken
// file in between changes nothing.
func TestReload(t *testing.T) {
	dir := folder(t)
	whole, err := os.ReadFile(filepath.Join(dir, "fashion.nac"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "d.nac")
	put := func(data []byte, i int) {
		if err := os.WriteFile(path+".new", data, 0o600); err != nil {
			t.Fatal(err)
		}
		os.Chtimes(path+".new", time.Time{}, time.Unix(int64(1e9+i), 0))
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	put(whole, 0)
	m, err := model(dir)
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	s, err := New([]Source{{Name: "d", Path: path, Open: func() (*nac.Detector, error) { return nac.Load(path, m) }}},
		Options{Reload: time.Hour, Log: slog.New(slog.NewTextHandler(&logged, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, files := testFiles(t, "test_fashion", 1)
	var stop atomic.Bool
	var load sync.WaitGroup
	answered := atomic.Int64{}
	for range 4 {
		load.Go(func() {
			for !stop.Load() {
				w := httptest.NewRecorder()
				s.Handler().ServeHTTP(w, httptest.NewRequest("POST", "/score/d", bytes.NewReader(files[0])))
				if w.Code != 200 {
					t.Errorf("%d %s", w.Code, w.Body)
					return
				}
				answered.Add(1)
			}
		})
	}
	for i := 1; i <= 10; i++ {
		before := answered.Load()
		data := whole
		if i%3 == 0 {
			data = whole[:len(whole)/2]
		}
		put(data, i)
		s.reload()
		for answered.Load() < before+8 && !t.Failed() {
			time.Sleep(time.Millisecond)
		}
	}
	stop.Store(true)
	load.Wait()
	if n := strings.Count(logged.String(), "was refused"); n != 3 {
		t.Errorf("%d of 3 broken files were refused:\n%s", n, logged.String())
	}
}

// child serves dir until it is killed, and says where.
func child(dir string) {
	s, err := New([]Source{source(dir)}, Options{Store: filepath.Join(dir, "state")})
	if err != nil {
		panic(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println("http://" + l.Addr().String())
	panic(s.Serve(context.Background(), l))
}

// A server killed by SIGKILL under load must come back with at least the images that it
// said were stored.
func TestKilled(t *testing.T) {
	t.Parallel() // it waits most of the time
	if runtime.GOOS == "windows" {
		t.Skip("no SIGKILL")
	}
	dir := folder(t)
	_, files := testFiles(t, "test_fashion", 3)
	os.Remove(filepath.Join(dir, "state"))
	stored := int64(0)
	for round := range 3 {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), "NAC_SERVE_CHILD="+dir)
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		url, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		url = strings.TrimSpace(url)
		report := func() (r []driftReport) {
			a, err := http.Get(url + "/drift")
			if err != nil {
				t.Fatal(err)
			}
			defer a.Body.Close()
			if err := json.NewDecoder(a.Body).Decode(&r); err != nil {
				t.Fatal(err)
			}
			return r
		}
		if got := report()[0]; got.Images < stored || int64(got.Window) != min(got.Images, 1000) {
			t.Errorf("round %d: %d images and a window of %d after %d were stored", round, got.Images, got.Window, stored)
		}
		for before := stored; stored <= before; {
			for _, f := range files {
				post(t, url+"/score", "image/png", f)
			}
			stored = report()[0].Stored
		}
		c.Process.Kill()
		c.Wait()
	}
	if stored < 3 {
		t.Errorf("%d images stored", stored)
	}
}

// OOD images must raise the alarm, ID images alone not; thumbnails come only if asked for.
func TestDriftOverHTTP(t *testing.T) {
	s, url := start(t, Options{Drift: drift.Settings{RunLength: 10_000, Window: 100}, Thumbnails: true})
	_, id := testFiles(t, "test_fashion", 200)
	for _, f := range id {
		post(t, url+"/score", "image/png", f)
	}
	if r := s.detectors["fashion"].report(); r.Alarms != 0 || r.Images != 200 || r.Window != 100 {
		t.Errorf("ID images: %+v", r)
	}
	_, ood := testFiles(t, "test_ankle_boot", 100)
	for _, f := range ood {
		post(t, url+"/score", "image/png", f)
	}
	r := s.detectors["fashion"].report()
	if r.Alarms == 0 || !r.Drift || r.KSP > 1e-3 {
		t.Errorf("OOD images raised no alarm: %+v", r.Report)
	}
	if len(r.Worst) != mostSeen || !bytes.HasPrefix(r.Worst[0].Thumbnail, []byte("\x89PNG")) {
		t.Errorf("worst: %d, %s", len(r.Worst), base64.StdEncoding.EncodeToString(r.Worst[0].Thumbnail))
	}
}
