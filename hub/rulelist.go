package hub

import "github.com/millrace/millrace/auth"

// ReplaceRules checks a whole list of rules that is to be in place of another,
// for use in Update or before CreateEventHub. Keys that are not given stay as
// they are in old, or are made. entity is for messages.
func ReplaceRules(entity string, old, want []Rule) ([]Rule, error) {
	if len(want) > MaxRules {
		return nil, fail(QuotaExceeded, entity, "There are up to %d authorization rules, not %d.", MaxRules, len(want))
	}
	var out []Rule
	for _, r := range want {
		if err := checkName("authorization rule", r.Name, MaxRuleName); err != nil {
			return nil, err
		}
		if indexRule(out, r.Name) >= 0 {
			return nil, fail(InvalidArgument, entity, "The authorization rule '%s' is named twice.", r.Name)
		}
		if r.Rights&auth.Manage == auth.Manage {
			r.Rights = auth.Manage
		}
		if r.Rights == 0 {
			return nil, fail(InvalidArgument, entity, "The authorization rule '%s' has to give Listen, Send or Manage.", r.Name)
		}
		before := Rule{Primary: NewKey(), Secondary: NewKey()}
		if i := indexRule(old, r.Name); i >= 0 {
			before = old[i]
		}
		if r.Primary == "" {
			r.Primary = before.Primary
		}
		if r.Secondary == "" {
			r.Secondary = before.Secondary
		}
		if err := r.check(entity); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}
