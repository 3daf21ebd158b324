package serve

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"net/http/httptest"
	"testing"

	"nac"
)

type inferOutput struct {
	Name       string            `json:"name"`
	Datatype   string            `json:"datatype"`
	Shape      []int             `json:"shape"`
	Parameters *tensorParameters `json:"parameters,omitempty"`
	Data       any               `json:"data,omitempty"`
}

type inferResponse struct {
	Model   string        `json:"model_name"`
	Version string        `json:"model_version"`
	ID      string        `json:"id,omitempty"`
	Outputs []inferOutput `json:"outputs"`
}

// columns are the outputs' values, one after the other.
func columns(results []nac.Result) []any {
	var score, pValue, probability []float64
	var ood []bool
	var class []int64
	for _, r := range results {
		score, pValue, probability = append(score, r.Score), append(pValue, r.PValue), append(probability, r.Probability)
		ood, class = append(ood, r.OOD), append(class, int64(r.Class))
	}
	return []any{score, pValue, ood, class, probability}
}

// TestInferAnswer compares the answer with what packages json and binary write.
func TestInferAnswer(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	number := func() float64 {
		if r.IntN(8) == 0 {
			return float64(r.IntN(3))
		}
		return r.NormFloat64() * math.Pow(10, float64(r.IntN(60)-30))
	}
	for range 2000 {
		results := make([]nac.Result, 1+r.IntN(3))
		for i := range results {
			results[i] = nac.Result{OOD: r.IntN(2) == 0, Score: number(), PValue: number(), Class: r.IntN(1000), Probability: number()}
		}
		var q inferRequest
		q.ID = []string{"", "7", "a \"<quote>\"\u2028"}[r.IntN(3)]
		q.Parameters.BinaryOutput = r.IntN(4) == 0
		text := `{"outputs":[`
		for i, o := range outputs {
			if r.IntN(2) == 0 {
				text += `{"name":"` + o.Name + `","parameters":{"binary_data":` + []string{"true", "false"}[i%2] + `}},`
			}
		}
		if err := json.Unmarshal([]byte(string(bytes.TrimSuffix([]byte(text), []byte(",")))+"]}"), &q); err != nil {
			t.Fatal(err)
		}
		want := inferResponse{Model: `m"<`, Version: "1", ID: q.ID}
		var blob []byte
		for i, values := range columns(results) {
			o, isBinary := outputs[i], q.Parameters.BinaryOutput
			if len(q.Outputs) > 0 {
				asked := false
				for _, a := range q.Outputs {
					if a.Name == o.Name {
						asked, isBinary = true, isBinary || a.Parameters.Binary
					}
				}
				if !asked {
					continue
				}
			}
			out := inferOutput{Name: o.Name, Datatype: o.Datatype, Shape: []int{len(results)}, Data: values}
			if isBinary {
				data, err := binary.Append(nil, binary.LittleEndian, values)
				if err != nil {
					t.Fatal(err)
				}
				size := len(data)
				blob, out.Data, out.Parameters = append(blob, data...), nil, &tensorParameters{BinarySize: &size}
			}
			want.Outputs = append(want.Outputs, out)
		}
		header, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		if err := q.answer(w, want.Model, results); err != nil {
			t.Fatal(err)
		}
		if got := w.Body.String(); got != string(header)+string(blob) {
			t.Fatalf("answered\n%q, want\n%q", got, string(header)+string(blob))
		}
	}
	var q inferRequest
	if err := q.answer(httptest.NewRecorder(), "m", []nac.Result{{Score: math.NaN()}}); err == nil {
		t.Error("NaN is answered")
	}
}
