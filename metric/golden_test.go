package metric_test

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	"nac/internal/shareddata"
	"nac/metric"
)

// number reads JSON numbers and the strings "nan", "inf" and "-inf".
type number float64

func (n *number) UnmarshalJSON(b []byte) error {
	switch s := strings.Trim(string(b), `"`); s {
	case "nan":
		*n = number(math.NaN())
	case "inf":
		*n = number(math.Inf(1))
	case "-inf":
		*n = number(math.Inf(-1))
	default:
		return json.Unmarshal(b, (*float64)(n))
	}
	return nil
}

type expectation struct {
	FPR95   number `json:"fpr95"`
	AUROC   number `json:"auroc"`
	AUPRIn  number `json:"aupr_in"`
	AUPROut number `json:"aupr_out"`
	Acc     number `json:"acc"`
}

type goldenCase struct {
	Conf   []number     `json:"conf"`
	Label  []int        `json:"label"`
	Pred   []int        `json:"pred"`
	Fork   *expectation `json:"expect"`
	Expect *expectation `json:"expect_openood_newer"`
	Raises string       `json:"raises"`
}

func TestGolden(t *testing.T) {
	raw, err := os.ReadFile(shareddata.Path(t, "golden", "metrics.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases map[string]goldenCase
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var id, ood []float64
			var pred, label []int
			for i, l := range c.Label {
				if l < 0 {
					ood = append(ood, float64(c.Conf[i]))
					continue
				}
				id = append(id, float64(c.Conf[i]))
				pred = append(pred, c.Pred[i])
				label = append(label, l)
			}
			got, err := metric.OOD(id, ood)
			area, areaErr := metric.AUROC(id, ood)
			if (err == nil) != (areaErr == nil) {
				t.Fatalf("OOD: %v, AUROC: %v", err, areaErr)
			}
			switch {
			case c.Raises != "":
				if err == nil {
					t.Fatalf("no error, want as %q", c.Raises)
				}
				want := "NaN"
				if strings.Contains(c.Raises, "infinity") {
					want = "infinite"
				}
				if !strings.Contains(err.Error(), want) {
					t.Fatalf("error %q does not say %q", err, want)
				}
				return
			case len(id) == 0 || len(ood) == 0:
				// The reference answers with NaN here; a table should not.
				if !errors.Is(err, metric.ErrEmpty) {
					t.Fatalf("error %v, want ErrEmpty", err)
				}
				return
			case err != nil:
				t.Fatal(err)
			}
			near := func(what string, got float64, want number) {
				t.Helper()
				if math.Abs(got-float64(want)) > 1e-12 {
					t.Errorf("%s = %.17g, want %.17g", what, got, float64(want))
				}
			}
			near("FPR95", got.FPR95, c.Expect.FPR95)
			near("AUROC", got.AUROC, c.Expect.AUROC)
			near("AUROC alone", area, c.Expect.AUROC)
			near("AUPRIn", got.AUPRIn, c.Expect.AUPRIn)
			near("AUPROut", got.AUPROut, c.Expect.AUPROut)
			near("Accuracy", metric.Accuracy(pred, label), c.Expect.Acc)
			// The fork's names are the other way round.
			near("AUPRIn (fork's AUPR_OUT)", got.AUPRIn, c.Fork.AUPROut)
			near("AUPROut (fork's AUPR_IN)", got.AUPROut, c.Fork.AUPRIn)
		})
	}
}
