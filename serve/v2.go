package serve

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"

	"nac"
)

// The Open Inference Protocol, version 2, with the extension for binary tensors.

// modelVersion is what the protocol calls the version in use: there is one.
const modelVersion = "1"

type tensorMetadata struct {
	Name     string `json:"name"`
	Datatype string `json:"datatype"`
	Shape    []int  `json:"shape"`
}

// output is a tensor of an answer, one value an image, as JSON and as binary.
type output struct {
	tensorMetadata
	text, binary func(to []byte, r nac.Result) []byte
}

var outputs = []output{
	float64s("score", func(r nac.Result) float64 { return r.Score }),
	float64s("p_value", func(r nac.Result) float64 { return r.PValue }),
	{tensorMetadata{"ood", "BOOL", []int{-1}},
		func(to []byte, r nac.Result) []byte { return strconv.AppendBool(to, r.OOD) },
		func(to []byte, r nac.Result) []byte { return append(to, byte(b2i(r.OOD))) }},
	{tensorMetadata{"class", "INT64", []int{-1}},
		func(to []byte, r nac.Result) []byte { return strconv.AppendInt(to, int64(r.Class), 10) },
		func(to []byte, r nac.Result) []byte { return binary.LittleEndian.AppendUint64(to, uint64(r.Class)) }},
	float64s("probability", func(r nac.Result) float64 { return r.Probability }),
}

func float64s(name string, of func(nac.Result) float64) output {
	return output{tensorMetadata{name, "FP64", []int{-1}},
		func(to []byte, r nac.Result) []byte { return appendNumber(to, of(r)) },
		func(to []byte, r nac.Result) []byte {
			return binary.LittleEndian.AppendUint64(to, math.Float64bits(of(r)))
		}}
}

// appendNumber writes a finite number as encoding/json does.
func appendNumber(to []byte, x float64) []byte {
	if size := math.Abs(x); size == 0 || size >= 1e-6 && size < 1e21 {
		return strconv.AppendFloat(to, x, 'f', -1, 64)
	}
	to = strconv.AppendFloat(to, x, 'e', -1, 64)
	if n := len(to); to[n-4] == 'e' && to[n-3] == '-' && to[n-2] == '0' { // e-07 is e-7
		to[n-2] = to[n-1]
		to = to[:n-1]
	}
	return to
}

type tensorParameters struct {
	BinarySize *int `json:"binary_data_size,omitempty"`
	Binary     bool `json:"binary_data,omitempty"`
}

type inferInput struct {
	Name       string           `json:"name"`
	Datatype   string           `json:"datatype"`
	Shape      []int            `json:"shape"`
	Parameters tensorParameters `json:"parameters"`
	Data       json.RawMessage  `json:"data"`
}

type inferRequest struct {
	ID         string `json:"id"`
	Parameters struct {
		BinaryOutput bool `json:"binary_data_output"`
	} `json:"parameters"`
	Inputs  []inferInput `json:"inputs"`
	Outputs []struct {
		Name       string           `json:"name"`
		Parameters tensorParameters `json:"parameters"`
	} `json:"outputs"`
}

func (s *Server) live(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, map[string]bool{"live": true})
	return nil
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) error {
	if s.draining.Load() {
		return failf(http.StatusServiceUnavailable, "the server is about to end")
	}
	writeJSON(w, http.StatusOK, map[string]bool{"ready": true})
	return nil
}

func (s *Server) serverMetadata(w http.ResponseWriter, _ *http.Request) error {
	version := "unknown"
	if b, ok := debug.ReadBuildInfo(); ok {
		version = b.Main.Version
	}
	writeJSON(w, http.StatusOK, map[string]any{"name": "nac", "version": version, "extensions": []string{"binary_tensor_data"}})
	return nil
}

func (s *Server) modelMetadata(w http.ResponseWriter, r *http.Request) error {
	d, err := s.detector(r)
	if err != nil {
		return err
	}
	v := d.use()
	defer v.users.Done()
	in := v.info.Model.Input
	writeJSON(w, http.StatusOK, map[string]any{
		"name": d.name, "versions": []string{modelVersion}, "platform": "nac",
		// One of the two is to be given.
		"inputs": []tensorMetadata{
			{"images", "FP32", []int{-1, in[0], in[1], in[2]}},
			{"encoded", "BYTES", []int{-1}},
		},
		"outputs": outputs,
	})
	return nil
}

func (s *Server) modelReady(w http.ResponseWriter, r *http.Request) error {
	d, err := s.detector(r)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]any{"name": d.name, "ready": true})
	return nil
}

// lastInfer is the last request of the inference protocol that was short: clients that send
// binary data send the same JSON with it again and again.
type lastInfer struct {
	header  string
	request *inferRequest
}

// inferRequest parses a request, which must not be changed.
func (s *Server) inferRequest(header []byte) (*inferRequest, error) {
	if last := s.lastInfer.Load(); last != nil && last.header == string(header) {
		return last.request, nil
	}
	q := new(inferRequest)
	if err := json.Unmarshal(header, q); err != nil {
		return nil, err
	}
	if len(header) <= 1<<10 {
		s.lastInfer.Store(&lastInfer{string(header), q})
	}
	return q, nil
}

func (s *Server) infer(w http.ResponseWriter, r *http.Request) error {
	d, err := s.detector(r)
	if err != nil {
		return err
	}
	body, release, err := s.readBody(w, r)
	if err != nil {
		return err
	}
	defer release()
	header, rest := body, []byte(nil)
	if h := r.Header.Get("Inference-Header-Content-Length"); h != "" {
		n, err := strconv.Atoi(h)
		if err != nil || n < 0 || n > len(body) {
			return failf(http.StatusBadRequest, "Inference-Header-Content-Length is %.20q, the body has %d bytes", h, len(body))
		}
		header, rest = body[:n], body[n:]
	}
	q, err := s.inferRequest(header)
	if err != nil {
		return failf(http.StatusBadRequest, "the request is not JSON of the inference protocol: %w", err)
	}
	for _, o := range q.Outputs {
		if !slices.ContainsFunc(outputs, func(t output) bool { return t.Name == o.Name }) {
			return failf(http.StatusBadRequest, "there is no output %.40q", o.Name)
		}
	}
	if len(q.Inputs) != 1 {
		return failf(http.StatusBadRequest, "%d inputs; give one, images or encoded", len(q.Inputs))
	}
	in := q.Inputs[0]
	raw := []byte(nil)
	if n := in.Parameters.BinarySize; n != nil {
		if *n != len(rest) {
			return failf(http.StatusBadRequest, "input %s tells of %d bytes of binary data, %d follow the JSON", in.Name, *n, len(rest))
		}
		raw = rest
		if raw == nil {
			raw = []byte{}
		}
	} else if len(rest) > 0 {
		return failf(http.StatusBadRequest, "%d bytes after the JSON, of which no input tells", len(rest))
	}
	v := d.use()
	defer v.users.Done()
	n, score, err := s.images2score(d, v, in, raw)
	if err != nil {
		return err
	}
	results, err := s.scoreAll(r.Context(), n, score)
	if err != nil {
		return err
	}
	return q.answer(w, d.name, results)
}

// scoreAll scores n images of one request side by side, so that they share batches.
func (s *Server) scoreAll(ctx context.Context, n int, score func(ctx context.Context, i int) (nac.Result, error)) ([]nac.Result, error) {
	leave, err := s.admit(n)
	if err != nil {
		return nil, err
	}
	defer leave()
	results, errs := make([]nac.Result, n), make([]error, n)
	if n == 1 {
		results[0], errs[0] = score(ctx, 0)
		return results, errs[0]
	}
	done := make(chan struct{})
	for i := range n {
		go func() {
			results[i], errs[i] = score(ctx, i)
			done <- struct{}{}
		}()
	}
	for range n {
		<-done
	}
	for i, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("image %d: %w", i, err)
		}
	}
	return results, nil
}

// images2score checks an input and returns how to score each of its images.
func (s *Server) images2score(d *served, v *version, in inferInput, raw []byte) (int, func(context.Context, int) (nac.Result, error), error) {
	bad := func(format string, args ...any) (int, func(context.Context, int) (nac.Result, error), error) {
		return 0, nil, failf(http.StatusBadRequest, "input %.40q: %w", in.Name, fmt.Errorf(format, args...))
	}
	want := v.info.Model.Input
	if len(in.Shape) == 0 || in.Shape[0] < 1 || in.Shape[0] > s.options.MaxQueue {
		return bad("shape %v; the first dimension is the number of images, 1 to %d", in.Shape, s.options.MaxQueue)
	}
	n := in.Shape[0]
	switch in.Datatype {
	case "FP32":
		if len(in.Shape) != 4 || [3]int(in.Shape[1:]) != want {
			return bad("shape %v; want [n %d %d %d]", in.Shape, want[0], want[1], want[2])
		}
		size := v.batcher.size
		if raw != nil && len(raw) != 4*n*size {
			return bad("%d bytes are not %d float32 values", len(raw), n*size)
		}
		calls := make([]*call, n)
		for i := range calls {
			calls[i] = v.batcher.call()
			if raw != nil && !floats(calls[i].input, raw[4*i*size:]) {
				return bad("a value is not finite")
			}
		}
		if raw == nil {
			if err := parse(in.Data, calls); err != nil {
				return bad("%w", err)
			}
		}
		return n, func(ctx context.Context, i int) (nac.Result, error) { return d.scoreTensor(ctx, v, calls[i]) }, nil
	case "BYTES":
		count := 1
		for _, k := range in.Shape {
			if k != 1 && k != n {
				return bad("shape %v; want [n] or [n 1]", in.Shape)
			}
			count = max(count, k)
		}
		if len(in.Shape) > 2 || len(in.Shape) == 2 && in.Shape[1] != 1 || count != n {
			return bad("shape %v; want [n] or [n 1]", in.Shape)
		}
		var files [][]byte
		if raw == nil {
			return bad("encoded images come as binary data (binary_data_size), not as JSON")
		}
		for len(raw) > 0 {
			if len(raw) < 4 || uint64(binary.LittleEndian.Uint32(raw)) > uint64(len(raw)-4) {
				return bad("element %d is cut off", len(files))
			}
			end := 4 + int(binary.LittleEndian.Uint32(raw))
			files = append(files, raw[4:end])
			raw = raw[end:]
		}
		if len(files) != n {
			return bad("%d elements, the shape has %d", len(files), n)
		}
		return n, func(ctx context.Context, i int) (nac.Result, error) { return d.scoreImage(ctx, v, files[i], nil) }, nil
	}
	return bad("datatype %.20q; want FP32 (images, normalised) or BYTES (image files)", in.Datatype)
}

// floats reads binary values into an image, and tells whether all are finite.
func floats(image []float32, raw []byte) bool {
	// One more than the exponent of what is not finite changes the sign.
	const exponent, one = 0x7f800000, 0x00800000
	signs := uint32(0)
	for ; len(image) >= 4 && len(raw) >= 16; image, raw = image[4:], raw[16:] {
		a, b := binary.LittleEndian.Uint64(raw), binary.LittleEndian.Uint64(raw[8:])
		image[0], image[1] = math.Float32frombits(uint32(a)), math.Float32frombits(uint32(a>>32))
		image[2], image[3] = math.Float32frombits(uint32(b)), math.Float32frombits(uint32(b>>32))
		signs |= (uint32(a)&exponent + one) | (uint32(a>>32)&exponent + one) | (uint32(b)&exponent + one) | (uint32(b>>32)&exponent + one)
	}
	for i := range image {
		bits := binary.LittleEndian.Uint32(raw[4*i:])
		image[i] = math.Float32frombits(bits)
		signs |= bits&exponent + one
	}
	return signs>>31 == 0
}

// parse reads the numbers of nested arrays into calls' images, all of one size.
func parse(data json.RawMessage, calls []*call) error {
	size, got := len(calls[0].input), 0
	want := size * len(calls)
	err := flatten(data, func(x json.RawMessage) error {
		if got == want {
			return fmt.Errorf("more than %d values", want)
		}
		f, err := strconv.ParseFloat(string(x), 32) // beyond float32's range is an error
		calls[got/size].input[got%size] = float32(f)
		got++
		return err
	})
	if err == nil && got != want {
		err = fmt.Errorf("%d values, the shape has %d", got, want)
	}
	return err
}

// flatten gives the numbers of nested arrays to take, in order.
func flatten(data json.RawMessage, take func(json.RawMessage) error) error {
	start := -1
	for i, c := range data {
		switch {
		case c >= '0' && c <= '9' || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E':
			if start < 0 {
				start = i
			}
			continue
		case c != '[' && c != ']' && c != ',' && c != ' ' && c != '\n' && c != '\t' && c != '\r':
			return fmt.Errorf("the data are not arrays of numbers")
		}
		if start >= 0 {
			if err := take(data[start:i]); err != nil {
				return err
			}
			start = -1
		}
	}
	if start >= 0 {
		return fmt.Errorf("the data are not an array")
	}
	return nil
}

// answer writes the outputs that were asked for, all if none was named. The JSON is written
// by hand: encoding/json takes several times as long, for each request.
func (q *inferRequest) answer(w http.ResponseWriter, model string, results []nac.Result) error {
	for _, r := range results {
		for _, x := range []float64{r.Score, r.PValue, r.Probability} {
			if math.IsNaN(x) || math.IsInf(x, 0) {
				return fmt.Errorf("a result is %v, which JSON cannot say", x)
			}
		}
	}
	header, blob := make([]byte, 0, 512), []byte(nil)
	text := func(name, value string) {
		quoted, _ := json.Marshal(value) // a string has no error
		header = append(append(header, name...), quoted...)
	}
	text(`{"model_name":`, model)
	text(`,"model_version":`, modelVersion)
	if q.ID != "" {
		text(`,"id":`, q.ID)
	}
	header = append(header, `,"outputs":[`...)
	first := true
	for _, t := range outputs {
		asked, isBinary := len(q.Outputs) == 0, q.Parameters.BinaryOutput
		for _, o := range q.Outputs {
			if o.Name == t.Name {
				asked, isBinary = true, isBinary || o.Parameters.Binary
			}
		}
		if !asked {
			continue
		}
		if !first {
			header = append(header, ',')
		}
		first = false
		header = append(append(append(append(header, `{"name":"`...), t.Name...), `","datatype":"`...), t.Datatype...)
		header = append(strconv.AppendInt(append(header, `","shape":[`...), int64(len(results)), 10), ']')
		if isBinary {
			before := len(blob)
			for _, r := range results {
				blob = t.binary(blob, r)
			}
			header = strconv.AppendInt(append(header, `,"parameters":{"binary_data_size":`...), int64(len(blob)-before), 10)
			header = append(header, '}', '}')
			continue
		}
		header = append(header, `,"data":[`...)
		for i, r := range results {
			if i > 0 {
				header = append(header, ',')
			}
			header = t.text(header, r)
		}
		header = append(header, ']', '}')
	}
	header = append(header, ']', '}')
	w.Header().Set("Content-Type", "application/json")
	if len(blob) > 0 {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Inference-Header-Content-Length", strconv.Itoa(len(header)))
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(header)+len(blob)))
	w.Write(append(header, blob...))
	return nil
}
