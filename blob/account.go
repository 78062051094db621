package blob

import (
	"context"
	"encoding/xml"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/store"
)

// What concerns an account: Get and Set Blob Service Properties (the second
// stored, and its CORS rules followed), Get Account Information, Get Blob Service
// Stats, and the CORS preflight. Source: blob.md 2.5, 5.21.

// maxSmallDocument is the largest XML body but for a block list, in bytes.
const maxSmallDocument = 1 << 20

const maxCorsRules = 5

// serviceProperties is the document of the properties. What a Set leaves out
// stays as it was.
type serviceProperties struct {
	XMLName               xml.Name         `xml:"StorageServiceProperties" json:"-"`
	Logging               *loggingSettings `json:",omitempty"`
	HourMetrics           *metricsSettings `json:",omitempty"`
	MinuteMetrics         *metricsSettings `json:",omitempty"`
	Cors                  *corsRules       `json:",omitempty"`
	DefaultServiceVersion *string          `json:",omitempty"`
	DeleteRetentionPolicy *retentionPolicy `json:",omitempty"`
	StaticWebsite         *websiteSettings `json:",omitempty"`
}

type loggingSettings struct {
	Version         string
	Delete          bool
	Read            bool
	Write           bool
	RetentionPolicy retentionPolicy
}

type metricsSettings struct {
	Version         string
	Enabled         bool
	IncludeAPIs     *bool `xml:",omitempty" json:",omitempty"`
	RetentionPolicy retentionPolicy
}

type retentionPolicy struct {
	Enabled bool
	Days    *int `xml:",omitempty" json:",omitempty"`
}

type websiteSettings struct {
	Enabled                  bool
	IndexDocument            *string `xml:",omitempty" json:",omitempty"`
	ErrorDocument404Path     *string `xml:",omitempty" json:",omitempty"`
	DefaultIndexDocumentPath *string `xml:",omitempty" json:",omitempty"`
}

type corsRules struct {
	CorsRule []corsRule
}

type corsRule struct {
	AllowedOrigins  string
	AllowedMethods  string
	AllowedHeaders  string
	ExposedHeaders  string
	MaxAgeInSeconds int
}

func defaultProperties() serviceProperties {
	off := metricsSettings{Version: "1.0"}
	return serviceProperties{
		Logging: &loggingSettings{Version: "1.0"}, HourMetrics: &off, MinuteMetrics: &off, Cors: &corsRules{},
		DeleteRetentionPolicy: &retentionPolicy{}, StaticWebsite: &websiteSettings{},
	}
}

// properties returns an account's, with the version of their record.
func (s *Service) properties(ctx context.Context, account string) (serviceProperties, store.Version, error) {
	p := defaultProperties()
	e, err := s.meta.Get(ctx, serviceKey(account))
	if errors.Is(err, store.ErrNotFound) {
		return p, 0, nil
	}
	if err == nil {
		err = decodeJSON(e.Value, &p)
	}
	if err != nil {
		return p, 0, storageError("reading the service's properties", err)
	}
	return p, e.Version, nil
}

func (s *Service) getServiceProperties(req *request) error {
	p, _, err := s.properties(req.Context(), req.addr.account)
	if err != nil {
		return err
	}
	body, err := xml.Marshal(p)
	if err != nil {
		return storageError("writing the service's properties", err)
	}
	var x xmlWriter
	x.b.WriteString(xmlHeader)
	x.b.Write(body)
	req.writeXML(http.StatusOK, &x)
	return nil
}

func (s *Service) setServiceProperties(req *request) error {
	body, err := s.readDocument(req, maxSmallDocument)
	if err != nil {
		return err
	}
	var given serviceProperties
	if err := parseXML(body, &given); err != nil {
		return err
	}
	if err := given.check(); err != nil {
		return err
	}
	for range maxAttempts {
		p, version, err := s.properties(req.Context(), req.addr.account)
		if err != nil {
			return err
		}
		p.merge(given)
		_, err = s.meta.Put(context.WithoutCancel(req.Context()), serviceKey(req.addr.account), encodeJSON(&p), version)
		if _, lost := errors.AsType[*store.ConflictError](err); lost {
			continue
		}
		if err != nil {
			return storageError("storing the service's properties", err)
		}
		req.w.WriteHeader(http.StatusAccepted)
		return nil
	}
	return errContention()
}

func (p *serviceProperties) merge(given serviceProperties) {
	keep(&p.Logging, given.Logging)
	keep(&p.HourMetrics, given.HourMetrics)
	keep(&p.MinuteMetrics, given.MinuteMetrics)
	keep(&p.Cors, given.Cors)
	keep(&p.DefaultServiceVersion, given.DefaultServiceVersion)
	keep(&p.DeleteRetentionPolicy, given.DeleteRetentionPolicy)
	keep(&p.StaticWebsite, given.StaticWebsite)
}

func keep[T any](to **T, given *T) {
	if given != nil {
		*to = given
	}
}

func (p serviceProperties) check() error {
	if p.Cors == nil {
		return nil
	}
	if len(p.Cors.CorsRule) > maxCorsRules {
		return newError(codeInvalidXML, "There are %d CORS rules at most.", maxCorsRules)
	}
	for _, r := range p.Cors.CorsRule {
		if r.AllowedOrigins == "" || r.AllowedMethods == "" || r.MaxAgeInSeconds < 0 {
			return newError(codeInvalidXML, "A CORS rule has no origins, no methods, or a negative age.")
		}
	}
	return nil
}

// getServiceStats: there is no second place, so the last sync is always now.
func (s *Service) getServiceStats(req *request) error {
	var x xmlWriter
	x.open("StorageServiceStats")
	x.open("GeoReplication")
	x.element("Status", "live")
	x.element("LastSyncTime", httpTime(req.now.UnixMilli()))
	x.close("GeoReplication")
	x.close("StorageServiceStats")
	req.writeXML(http.StatusOK, &x)
	return nil
}

func (s *Service) getAccountInfo(req *request) error {
	req.set("x-ms-sku-name", "Standard_RAGRS")
	req.set("x-ms-account-kind", "StorageV2")
	req.set("x-ms-is-hns-enabled", "false")
	req.w.WriteHeader(http.StatusOK)
	return nil
}

// preflight answers OPTIONS: a browser asks whether it may, before it signs
// anything.
func (s *Service) preflight(req *request) error {
	origin, method := req.Header.Get("Origin"), req.Header.Get("Access-Control-Request-Method")
	if origin == "" || method == "" {
		return newError(codeMissingHeader, "A required CORS header is not present.")
	}
	p, _, err := s.properties(req.Context(), req.addr.account)
	if err != nil {
		return err
	}
	headers := req.Header.Get("Access-Control-Request-Headers")
	rule := p.Cors.find(origin, method)
	if rule == nil || !rule.allowsHeaders(headers) {
		return newError(codeCorsFailure, "CORS not enabled or no matching rule found for this request.")
	}
	rule.allow(req, origin)
	req.set("Access-Control-Allow-Methods", method)
	req.setNonEmpty("Access-Control-Allow-Headers", headers)
	req.set("Access-Control-Max-Age", strconv.Itoa(rule.MaxAgeInSeconds))
	req.w.WriteHeader(http.StatusOK)
	return nil
}

// allowOrigin adds the CORS headers to the answer to a request from a web page.
func (s *Service) allowOrigin(req *request) {
	origin := req.Header.Get("Origin")
	if origin == "" {
		return
	}
	p, _, err := s.properties(req.Context(), req.addr.account)
	if err != nil {
		return // the operation will meet the same failure
	}
	if rule := p.Cors.find(origin, req.Method); rule != nil {
		rule.allow(req, origin)
		req.setNonEmpty("Access-Control-Expose-Headers", rule.ExposedHeaders)
	}
}

func (r *corsRule) allow(req *request, origin string) {
	if strings.TrimSpace(r.AllowedOrigins) == "*" {
		req.set("Access-Control-Allow-Origin", "*")
		return
	}
	req.set("Access-Control-Allow-Origin", origin)
	req.set("Access-Control-Allow-Credentials", "true")
	req.set("Vary", "Origin")
}

// find returns the first rule for an origin and a method.
func (c *corsRules) find(origin, method string) *corsRule {
	if c == nil {
		return nil
	}
	for i, r := range c.CorsRule {
		methods := commaList(r.AllowedMethods)
		if (matchesAny(commaList(r.AllowedOrigins), origin)) && slices.Contains(methods, method) {
			return &c.CorsRule[i]
		}
	}
	return nil
}

func (r *corsRule) allowsHeaders(asked string) bool {
	allowed := commaList(strings.ToLower(r.AllowedHeaders))
	for _, h := range commaList(strings.ToLower(asked)) {
		if !matchesAny(allowed, h) {
			return false
		}
	}
	return true
}

// matchesAny tells whether a text is in a list, in which one star may stand for
// anything.
func matchesAny(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		head, tail, star := strings.Cut(p, "*")
		if !star {
			return p == s
		}
		return len(s) >= len(head)+len(tail) && strings.HasPrefix(s, head) && strings.HasSuffix(s, tail)
	})
}

func commaList(s string) []string {
	var list []string
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}
