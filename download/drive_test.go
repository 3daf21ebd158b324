package download

import (
	"net/url"
	"strings"
	"testing"
)

const (
	formPage = `<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title><meta http-equiv="content-type" content="text/html; charset=utf-8"/></head>
<body><div class="uc-main"><div id="uc-text"><p class="uc-warning-caption">Google Drive can't scan this file for viruses.</p>
<p class="uc-warning-subcaption"><span class="uc-name-size"><a href="/open?id=ID">cifar10.zip</a> (143M)</span> is too large for Google to scan for viruses.</p>
<form id="download-form" action="https://drive.usercontent.google.com/download" method="get">
<input type="submit" id="uc-download-link" class="goog-inline-block jfk-button" value="Download anyway"/>
<input type="hidden" name="id" value="ID"><input type="hidden" name="export" value="download"><input type="hidden" name="authuser" value="0">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="5e0c&amp;1"></form></div></div></body></html>`
	actionPage = `<html><form id="downloadForm" action="https://drive.google.com/uc?export=download&amp;id=ID&amp;confirm=t&amp;uuid=u1" method="post"><input type="submit" value="Download anyway"/></form></html>`
	linkPage   = `<html><a id="uc-download-link" class="button" href="/uc?export=download&amp;confirm=AbC_&amp;id=ID">Download anyway</a></html>`
	quotaPage  = `<html><head><title>Google Drive - Quota exceeded</title></head><body><div id="uc-text"><p class="uc-error-caption">Sorry, you can&#39;t view or download this file at this time.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p></div></body></html>`
)

func TestParseDrivePage(t *testing.T) {
	at, err := url.Parse("https://drive.google.com/uc?export=download&id=ID")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, page, want, problem string }{
		{"form", formPage, "https://drive.usercontent.google.com/download?authuser=0&confirm=t&export=download&id=ID&uuid=5e0c%261", ""},
		{"form's action", actionPage, "https://drive.google.com/uc?confirm=t&export=download&id=ID&uuid=u1", ""},
		{"link", linkPage, "https://drive.google.com/uc?export=download&confirm=AbC_&id=ID", ""},
		{"input of another form", `<form id="search"><input name="q" value="x"></form>` + formPage, "https://drive.usercontent.google.com/download?authuser=0&confirm=t&export=download&id=ID&uuid=5e0c%261", ""},
		{"quota", quotaPage, "", "quota exceeded"},
		{"sign in", `<title>Sign in - Google Accounts</title>`, "", "not shared"},
		{"reason", `<title>Error</title><p class="uc-error-caption">Sorry,<br> the <b>owner</b> is away.</p><p>more</p>`, "", `"Sorry, the owner is away."`},
		{"title only", `<title>Google Drive - Oops</title>`, "", `"Google Drive - Oops"`},
		{"long reason", `<title>` + strings.Repeat("ü", 1000) + `</title>`, "", "..."},
		{"nothing", ``, "", "web page"},
		{"not HTML", "PK\x03\x04\x00\xff", "", "web page"},
		{"foreign host", `<form id="download-form" action="https://evil.example/download"></form>`, "", "foreign"},
		{"foreign suffix", `<a id="uc-download-link" href="https://evilgoogle.com/x">`, "", "foreign"},
		{"without encryption", `<a id="uc-download-link" href="http://drive.google.com/x">`, "", "foreign"},
		{"other scheme", `<a id="uc-download-link" href="file:///etc/passwd">`, "", "foreign"},
		{"no address", `<a id="uc-download-link" href="https://[::1">`, "", "makes no sense"},
	} {
		u, err := parseDrivePage(strings.NewReader(c.page), at)
		switch {
		case c.problem != "":
			if err == nil || !strings.Contains(err.Error(), c.problem) {
				t.Errorf("%s: got %v, error %v; want an error with %q", c.name, u, err, c.problem)
			}
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		case u.String() != c.want:
			t.Errorf("%s: got %s, want %s", c.name, u, c.want)
		}
	}
}

func FuzzParseDrivePage(f *testing.F) {
	for _, s := range []string{formPage, actionPage, linkPage, quotaPage, "", "<form id=download-form action=//evil/>"} {
		f.Add(s)
	}
	at, err := url.Parse("https://drive.google.com/uc")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, page string) {
		u, err := parseDrivePage(strings.NewReader(page), at)
		if err != nil {
			if u != nil || len(err.Error()) > 2000 && !strings.Contains(err.Error(), "makes no sense") && !strings.Contains(err.Error(), "foreign") {
				t.Fatalf("%v, %v", u, err)
			}
			return
		}
		if u.Scheme != "https" || u.Host != "drive.google.com" && !strings.HasSuffix(strings.ToLower(u.Host), ".google.com") && !strings.HasSuffix(strings.ToLower(u.Host), ".googleusercontent.com") {
			t.Fatalf("leads to %v", u)
		}
	})
}
