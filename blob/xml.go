package blob

import (
	"bytes"
	"encoding/xml"
	"strings"
	"unicode/utf8"
)

// xmlWriter writes documents whose element names are partly data, such as
// metadata in lists, which encoding/xml can't.
type xmlWriter struct{ b bytes.Buffer }

const xmlHeader = `<?xml version="1.0" encoding="utf-8"?>`

// open writes a start tag with attributes given in pairs.
func (x *xmlWriter) open(name string, attrs ...string) {
	if x.b.Len() == 0 {
		x.b.WriteString(xmlHeader)
	}
	x.b.WriteByte('<')
	x.b.WriteString(name)
	for i := 0; i < len(attrs); i += 2 {
		x.b.WriteString(" " + attrs[i] + `="`)
		xml.EscapeText(&x.b, []byte(attrs[i+1])) //nolint:errcheck // a buffer takes everything
		x.b.WriteByte('"')
	}
	x.b.WriteByte('>')
}

func (x *xmlWriter) close(name string) {
	x.b.WriteString("</" + name + ">")
}

// element writes an element with text, or an empty one.
func (x *xmlWriter) element(name, text string, attrs ...string) {
	x.open(name, attrs...)
	if text == "" {
		x.b.Truncate(x.b.Len() - 1)
		x.b.WriteString("/>")
		return
	}
	xml.EscapeText(&x.b, []byte(text)) //nolint:errcheck // a buffer takes everything
	x.close(name)
}

// nonEmpty writes an element that has a text.
func (x *xmlWriter) nonEmpty(name, text string) {
	if text != "" {
		x.element(name, text)
	}
}

func (x *xmlWriter) bytes() []byte { return x.b.Bytes() }

// xmlLegal tells whether XML 1.0 can carry a text at all.
func xmlLegal(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r == utf8.RuneError || r == 0xFFFE || r == 0xFFFF || r < 0x20 && r != '\t' && r != '\n' && r != '\r'
	})
}

// parseXML reads a request's document into v, as xml.Unmarshal does.
func parseXML(b []byte, v any) error { return xmlError(xml.Unmarshal(b, v)) }

func xmlError(err error) error {
	if err == nil {
		return nil
	}
	e := newError(codeInvalidXML, "The request body is not the XML document that is expected.")
	e.Err = err
	return e
}
