package blob

import "strings"

// authorize finds out who asks: by an Authorization header if there is one, else
// by a shared access signature in the query. Nothing is public.
func (s *Service) authorize(req *request) error {
	header := req.Header.Get("Authorization")
	if header == "" {
		if req.query.get("sig") != "" {
			return s.authorizeSAS(req)
		}
		return newError(codeNoAuth, "Server failed to authenticate the request. Please refer to the information in the www-authenticate header.")
	}
	scheme, credentials, ok := strings.Cut(header, " ")
	switch {
	case !ok:
		return errInvalidAuth()
	case strings.EqualFold(scheme, "SharedKey"), strings.EqualFold(scheme, "SharedKeyLite"):
		return s.authorizeKey(req, scheme, strings.TrimSpace(credentials))
	case strings.EqualFold(scheme, "Bearer"):
		e := errInvalidAuth()
		e.Status = 401
		e.Message += " This endpoint takes no bearer tokens; use the account's key or a shared access signature."
		return e
	}
	return errInvalidAuth()
}
