package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"time"

	"nac"
)

// scored is an answer of POST /score.
type scored struct {
	Detector string `json:"detector"`
	// File is the name of the part of a multipart request.
	File string `json:"file,omitempty"`
	nac.Result
}

// score takes an image as the body, several as multipart parts, or a CloudEvent
// (https://github.com/cloudevents/spec, version 1.0) in binary or structured mode.
func (s *Server) score(w http.ResponseWriter, r *http.Request) error {
	d, err := s.detector(r)
	if err != nil {
		return err
	}
	body, release, err := s.readBody(w, r)
	if err != nil {
		return err
	}
	defer release()
	if len(body) == 0 {
		return failf(http.StatusBadRequest, "the body is empty; send an image")
	}
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil && r.Header.Get("Content-Type") != "" {
		return failf(http.StatusBadRequest, "Content-Type: %w", err)
	}
	v := d.use()
	defer v.users.Done()
	one := func(image []byte) (scored, error) {
		results, err := s.scoreAll(r.Context(), 1, func(ctx context.Context, _ int) (nac.Result, error) { return d.scoreImage(ctx, v, image, nil) })
		if err != nil {
			return scored{}, err
		}
		return scored{Detector: d.name, Result: results[0]}, nil
	}
	switch {
	case media == "application/cloudevents+json":
		return s.structuredEvent(w, d.name, body, one)
	case strings.HasPrefix(media, "application/cloudevents"):
		return failf(http.StatusUnsupportedMediaType, "%s: send one event, as JSON or in binary mode", media)
	case media == "multipart/form-data":
		files, names, err := parts(body, params["boundary"])
		if err != nil {
			return failure{http.StatusBadRequest, err}
		}
		results, err := s.scoreAll(r.Context(), len(files), func(ctx context.Context, i int) (nac.Result, error) { return d.scoreImage(ctx, v, files[i], nil) })
		if err != nil {
			return err
		}
		all := make([]scored, len(results))
		for i := range all {
			all[i] = scored{d.name, names[i], results[i]}
		}
		writeJSON(w, http.StatusOK, map[string]any{"results": all})
		return nil
	case media == "application/json":
		return failf(http.StatusUnsupportedMediaType, "the body is JSON; send an image file")
	}
	spec := r.Header.Get("Ce-Specversion")
	if spec != "" {
		if err := checkEvent(spec, r.Header.Get("Ce-Id"), r.Header.Get("Ce-Source"), r.Header.Get("Ce-Type")); err != nil {
			return err
		}
	}
	result, err := one(body)
	if err != nil {
		return err
	}
	if spec != "" {
		h := w.Header()
		h.Set("Ce-Specversion", "1.0")
		h.Set("Ce-Id", r.Header.Get("Ce-Id"))
		h.Set("Ce-Source", "/score/"+d.name)
		h.Set("Ce-Type", resultType)
		h.Set("Ce-Time", time.Now().UTC().Format(time.RFC3339Nano))
		if subject := r.Header.Get("Ce-Subject"); subject != "" {
			h.Set("Ce-Subject", subject)
		}
	}
	writeJSON(w, http.StatusOK, result)
	return nil
}

// resultType is the type of the events that answer.
const resultType = "nac.score"

// event is a CloudEvent in structured mode.
type event struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject,omitempty"`
	Time            string          `json:"time,omitempty"`
	DataContentType string          `json:"datacontenttype,omitempty"`
	Data            json.RawMessage `json:"data,omitempty"`
	DataBase64      []byte          `json:"data_base64,omitempty"`
}

func checkEvent(spec, id, source, kind string) error {
	if spec != "1.0" {
		return failf(http.StatusBadRequest, "a CloudEvent of version %.20q; want 1.0", spec)
	}
	if id == "" || source == "" || kind == "" {
		return failf(http.StatusBadRequest, "a CloudEvent needs id, source and type")
	}
	return nil
}

func (s *Server) structuredEvent(w http.ResponseWriter, model string, body []byte, one func([]byte) (scored, error)) error {
	var e event
	if err := json.Unmarshal(body, &e); err != nil {
		return failf(http.StatusBadRequest, "not a CloudEvent: %w", err)
	}
	if err := checkEvent(e.SpecVersion, e.ID, e.Source, e.Type); err != nil {
		return err
	}
	if len(e.DataBase64) == 0 {
		return failf(http.StatusBadRequest, "the CloudEvent has no data_base64 that holds an image")
	}
	result, err := one(e.DataBase64)
	if err != nil {
		return err
	}
	data, err := json.Marshal(result)
	if err != nil {
		return err
	}
	answer, err := json.Marshal(event{
		SpecVersion: "1.0", ID: e.ID, Source: "/score/" + model, Type: resultType, Subject: e.Subject,
		Time: time.Now().UTC().Format(time.RFC3339Nano), DataContentType: "application/json", Data: data,
	})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/cloudevents+json")
	w.Write(answer)
	return nil
}

// parts reads the files of a multipart body.
func parts(body []byte, boundary string) (files [][]byte, names []string, err error) {
	if boundary == "" {
		return nil, nil, errors.New("multipart without a boundary")
	}
	in := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		p, err := in.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, fmt.Errorf("multipart: %w", err)
		}
		data, err := io.ReadAll(p)
		if err != nil {
			return nil, nil, fmt.Errorf("multipart: %w", err)
		}
		name := p.FileName()
		if name == "" {
			name = p.FormName()
		}
		files, names = append(files, data), append(names, name)
	}
	if len(files) == 0 {
		return nil, nil, errors.New("multipart without parts")
	}
	return files, names, nil
}
