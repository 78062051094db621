package millrace

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/blob"
	"github.com/millrace/millrace/hub"
)

// The development key: the emulator's own, so that its connection string works.
// It is public knowledge. Source: Azure/azure-event-hubs-emulator-installer
// README.md.
const (
	RootRule = "RootManageSharedAccessKey" // the rule of the key, and of the generated one
	DevKey   = "SAS_KEY_VALUE"
)

// keys are those that the broker itself brings: the development keys, or its own.
type keys struct {
	Primary    string   `json:"primary"`
	Secondary  string   `json:"secondary,omitempty"`
	BlobKeys   []string `json:"blobKeys"` // base64
	publicKeys bool     // they are the development keys
}

const keysFile = "keys.json"

// chooseKeys returns the development keys where they may be used, and otherwise
// the data folder's own, made at the first start.
func chooseKeys(dir string, public bool) (*keys, error) {
	if public {
		return &keys{Primary: DevKey, BlobKeys: []string{blob.DevelopmentKey}, publicKeys: true}, nil
	}
	path := filepath.Join(dir, keysFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKeys(path)
	}
	if err != nil {
		return nil, fmt.Errorf("the keys can't be read: %w", err)
	}
	var k keys
	if err := json.Unmarshal(b, &k); err != nil || k.Primary == "" || len(k.BlobKeys) == 0 {
		return nil, fmt.Errorf("%s is damaged: restore it from a backup, or delete it to have new keys made", path)
	}
	return &k, nil
}

func makeKeys(path string) (*keys, error) {
	k := &keys{Primary: randomKey(32), Secondary: randomKey(32), BlobKeys: []string{randomKey(64)}}
	b, err := json.MarshalIndent(k, "", "\t")
	if err != nil {
		return nil, err
	}
	if err := writeFile(path, append(b, '\n'), 0o600); err != nil {
		return nil, fmt.Errorf("the broker's own keys can't be stored: %w", err)
	}
	return k, nil
}

// randomKey is n bytes in base64, the form of the service's own keys.
func randomKey(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return base64.StdEncoding.EncodeToString(b)
}

// rule is the broker's own authorization rule, which holds in every namespace.
func (k *keys) rule() hub.Rule {
	return hub.Rule{Name: RootRule, Rights: auth.Manage, Primary: k.Primary, Secondary: k.Secondary}
}

// accounts are the storage accounts: those of the options, and the development
// account unless they name it. It keeps its name when its key is the broker's
// own, so that checkpoints are still there when a door is opened to the network.
func (k *keys) accounts(more map[string][]string) map[string][]string {
	all := map[string][]string{blob.DevelopmentAccount: k.BlobKeys}
	maps.Copy(all, more)
	return all
}

// checkAccount looks at a storage account's name and keys.
func checkAccount(name string, keys []string) error {
	if len(name) < 3 || len(name) > 24 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return fmt.Errorf("a storage account has a name of 3 to 24 lower-case letters and digits, not %q", name)
	}
	if len(keys) < 1 || len(keys) > 2 {
		return fmt.Errorf("the storage account %s has one or two keys, not %d", name, len(keys))
	}
	for _, key := range keys {
		if b, err := base64.StdEncoding.DecodeString(key); err != nil || len(b) == 0 {
			return fmt.Errorf("a key of the storage account %s is not base64", name)
		}
	}
	return nil
}

// configured are the rules that the options have, as the hub takes them.
func configured(spaces []Namespace) []hub.RulesOf {
	var all []hub.RulesOf
	for _, ns := range spaces {
		all = append(all, hub.RulesOf{Namespace: ns.Name, Rules: ns.Rules})
		for _, h := range ns.Hubs {
			all = append(all, hub.RulesOf{Namespace: ns.Name, Hub: h.Name, Rules: h.Rules})
		}
	}
	return all
}

// ruleBook is the auth.Keys of the broker: the hub's, but for the development key
// where that may not be used.
type ruleBook struct {
	*hub.Namespaces
	public bool
}

// Rule implements auth.Keys.
func (b *ruleBook) Rule(namespace, hub, name string) (auth.Rule, bool) {
	rule, ok := b.Namespaces.Rule(namespace, hub, name)
	if !b.public {
		for _, key := range []*string{&rule.Primary, &rule.Secondary} {
			if *key == DevKey {
				*key = ""
			}
		}
	}
	return rule, ok
}

// refusePublicKeys finds development keys among those of the options.
func refusePublicKeys(o *Options) error {
	const advice = "it is public, and a door is open beyond loopback: use another key, or accept the risk with --insecure-dev-keys"
	for _, ns := range o.Namespaces {
		rules := ns.Rules
		for _, h := range ns.Hubs {
			rules = append(rules[:len(rules):len(rules)], h.Rules...)
		}
		for _, r := range rules {
			if r.Primary == DevKey || r.Secondary == DevKey {
				return fmt.Errorf("%sthe rule %s has the development key; %s", ns.at, r.Name, advice)
			}
		}
	}
	for name, keys := range o.BlobAccounts {
		if slices.Contains(keys, blob.DevelopmentKey) {
			return fmt.Errorf("the storage account %s has the development key; %s", name, advice)
		}
	}
	return nil
}

// writeFile replaces a file by rename, so that nobody sees half of it.
func writeFile(path string, b []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil && mode&0o077 == 0 {
		err = f.Sync() // a key that clients were told must not be lost
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return nil
}
