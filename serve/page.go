package serve

import (
	"bytes"
	_ "embed"
	"image"
	"image/color"
	"image/png"
	"net/http"

	"nac"
	"nac/imageset"
)

//go:embed page.html
var pageHTML []byte

//go:embed openapi.json
var openAPIJSON []byte

// page is for a browser. It asks GET /drift for all that it shows.
func (s *Server) page(w http.ResponseWriter, _ *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	w.Write(pageHTML)
	return nil
}

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	w.Write(openAPIJSON)
	return nil
}

// drift answers with the reports of all detectors.
func (s *Server) drift(w http.ResponseWriter, _ *http.Request) error {
	all := make([]driftReport, len(s.names))
	for i, name := range s.names {
		all[i] = s.detectors[name].report()
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, all)
	return nil
}

// list answers with what the detectors are.
func (s *Server) list(w http.ResponseWriter, _ *http.Request) error {
	type entry struct {
		Name string   `json:"name"`
		Info nac.Info `json:"info"`
	}
	all := make([]entry, len(s.names))
	for i, name := range s.names {
		v := s.detectors[name].use()
		all[i] = entry{name, v.info}
		v.users.Done()
		all[i].Info.Model.Path = "" // nobody's business
	}
	writeJSON(w, http.StatusOK, all)
	return nil
}

// thumbnailSide is the longer side of a thumbnail.
const thumbnailSide = 96

// thumbnail returns a small PNG, nil if it cannot be made.
func thumbnail(img *imageset.Image) []byte {
	longer := max(img.Width, img.Height)
	side := func(n int) int { return max(1, n*min(thumbnailSide, longer)/longer) }
	small, err := img.Resized(side(img.Width), side(img.Height), imageset.Bilinear)
	if err != nil {
		return nil
	}
	out := image.NewNRGBA(image.Rect(0, 0, small.Width, small.Height))
	for i := range small.Width * small.Height {
		p := small.Pix[3*i:]
		out.SetNRGBA(i%small.Width, i/small.Width, color.NRGBA{R: p[0], G: p[1], B: p[2], A: 255})
	}
	var b bytes.Buffer
	if err := png.Encode(&b, out); err != nil {
		return nil
	}
	return b.Bytes()
}
