package download

import (
	"errors"
	"io"
	"net/url"
	"strings"

	"golang.org/x/net/html"
)

// maxPage is more than any page of Google Drive that stands before a file.
const maxPage = 1 << 20

// parseDrivePage reads the page that Google Drive shows instead of a file that is
// too big for its virus scan, and returns the address that its button leads to.
// Three forms are known: a form with hidden fields (id, confirm, uuid, ...), a
// form whose action has them all, and a link with id uc-download-link. at is the
// address of the page; an address at a foreign host is refused. A page that has
// no button says why: a quota is used up, the file is not shared, ...
func parseDrivePage(r io.Reader, at *url.URL) (*url.URL, error) {
	var (
		z               = html.NewTokenizer(io.LimitReader(r, maxPage))
		title, caption  strings.Builder
		inForm, inTitle bool
		haveForm        bool
		captionDepth    int // 0 outside of an error's text
		action, link    string
		fields          = url.Values{}
	)
loop:
	for {
		switch z.Next() {
		case html.ErrorToken:
			if err := z.Err(); !errors.Is(err, io.EOF) {
				return nil, err
			}
			break loop
		case html.TextToken:
			switch {
			case inTitle:
				title.Write(z.Text())
			case captionDepth > 0:
				caption.Write(z.Text())
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			t := z.Token()
			attr := func(name string) string {
				for _, a := range t.Attr {
					if a.Key == name {
						return a.Val
					}
				}
				return ""
			}
			if captionDepth > 0 && t.Type == html.StartTagToken && !voidElement(t.Data) {
				captionDepth++
			}
			switch t.Data {
			case "title":
				inTitle = t.Type == html.StartTagToken
			case "form":
				id := attr("id")
				if inForm = !haveForm && (id == "download-form" || id == "downloadForm"); inForm {
					haveForm, action = true, attr("action")
				}
			case "input":
				if name := attr("name"); inForm && name != "" && attr("type") != "submit" {
					fields.Set(name, attr("value"))
				}
			case "a":
				if attr("id") == "uc-download-link" {
					link = attr("href")
				}
			default:
				if c := attr("class"); captionDepth == 0 && (c == "uc-error-caption" || c == "uc-error-subcaption") {
					captionDepth = 1
					caption.WriteByte(' ')
				}
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			switch string(name) {
			case "title":
				inTitle = false
			case "form":
				inForm = false
			}
			if captionDepth > 0 {
				captionDepth--
			}
		}
	}

	target := link
	if haveForm && action != "" {
		target = action
	}
	if target == "" {
		return nil, pageProblem(title.String(), caption.String())
	}
	u, err := at.Parse(target)
	if err != nil {
		return nil, permanentf("Google Drive's page leads to an address that makes no sense: %v", err)
	}
	if haveForm {
		q := u.Query()
		for name, values := range fields {
			q[name] = values
		}
		u.RawQuery = q.Encode()
	}
	if u.Scheme != "https" && u.Scheme != at.Scheme || !driveHost(u.Host, at.Host) {
		return nil, permanentf("Google Drive's page leads to a foreign address, %s://%s", u.Scheme, u.Host)
	}
	return u, nil
}

// driveHost tells whether a page at host may lead to host to.
func driveHost(to, host string) bool {
	to = strings.ToLower(to)
	return to != "" && (strings.EqualFold(to, host) ||
		strings.HasSuffix(to, ".google.com") || strings.HasSuffix(to, ".googleusercontent.com"))
}

func voidElement(name string) bool {
	switch name {
	case "br", "hr", "img", "input", "link", "meta", "wbr":
		return true
	}
	return false
}

// pageProblem turns what a page without a button says into an error.
func pageProblem(title, caption string) error {
	title, caption = strings.Join(strings.Fields(title), " "), strings.Join(strings.Fields(caption), " ")
	all := strings.ToLower(title + " " + caption)
	switch {
	case strings.Contains(all, "quota") || strings.Contains(all, "too many users"):
		return permanentf("Google Drive: too many people have fetched this file lately (quota exceeded); " +
			"try again in a day, or give a mirror in --settings")
	case strings.Contains(all, "sign in") || strings.Contains(all, "sign-in") || strings.Contains(all, "need access"):
		return permanentf("Google Drive: the file is not shared with everybody")
	}
	says := title
	if caption != "" {
		says = caption
	}
	if len(says) > 200 {
		says = strings.ToValidUTF8(says[:200], "") + "..."
	}
	if says == "" {
		return permanentf("Google Drive sent a web page instead of the file")
	}
	return permanentf("Google Drive sent a web page instead of the file: %q", says)
}
