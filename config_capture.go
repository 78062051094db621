package millrace

import (
	"fmt"
	"os"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/millrace/millrace/admin"
	"github.com/millrace/millrace/hub"
)

// readDestinations reads where captured files can go.
func (f *configFile) readDestinations(n *yaml.Node) error {
	return f.items(n, "capture-destinations", func(item *yaml.Node) error {
		d := CaptureDestination{at: f.at(item)}
		err := f.fields(item, "a capture destination", map[string]func(*yaml.Node) error{
			"name":              f.text(&d.Name, "the name of a capture destination"),
			"kind":              f.text(&d.Kind, "kind"),
			"folder":            f.text(&d.Folder, "folder"),
			"connection-string": f.secret(&d.ConnectionString, "connection-string"),
			"endpoint":          f.text(&d.Endpoint, "endpoint"),
			"region":            f.text(&d.Region, "region"),
			"access-key":        f.secret(&d.AccessKey, "access-key"),
			"secret-key":        f.secret(&d.SecretKey, "secret-key"),
			"container":         f.text(&d.Container, "container"),
			"bucket":            f.text(&d.Container, "bucket"),
			"path-style":        f.readFlag(&d.PathStyle, "path-style"),
			"check-then-put":    f.readFlag(&d.CheckThenPut, "check-then-put"),
		})
		if err != nil {
			return err
		}
		if problem := d.check(); problem != "" {
			return f.fail(item, "%s", problem)
		}
		for _, other := range f.destinations {
			if strings.EqualFold(other.Name, d.Name) {
				return f.fail(item, "the capture destination %q is there twice", d.Name)
			}
		}
		f.destinations = append(f.destinations, d)
		return nil
	})
}

// secret returns a function that stores a scalar, or what is in the file that
// {file: PATH} names, or in the environment variable of {env: NAME}.
func (f *configFile) secret(to *string, what string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.MappingNode {
			return f.text(to, what)(n)
		}
		var file, env string
		if err := f.fields(n, what, map[string]func(*yaml.Node) error{"file": f.text(&file, "file"), "env": f.text(&env, "env")}); err != nil {
			return err
		}
		switch {
		case (file == "") == (env == ""):
			return f.fail(n, "%s is to name either a file or an environment variable (env)", what)
		case file != "":
			text, err := readSecret(file)
			if err != nil {
				return f.fail(n, "%s: %v", what, err)
			}
			*to = text
		default:
			*to = os.Getenv(env)
		}
		if *to == "" {
			return f.fail(n, "%s: there is nothing in %s", what, file+env)
		}
		return nil
	}
}

// maxSecret is far above what keys and connection strings have.
const maxSecret = 64 << 10

// readSecret reads a file that holds a secret and nothing else.
func readSecret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSecret {
		return "", fmt.Errorf("%s is not a file of up to %d bytes", path, maxSecret)
	}
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}

// readCapture reads how a hub is captured.
func (f *configFile) readCapture(to **hub.Capture) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		c := hub.Capture{Enabled: true}
		*to = &c
		if n.Kind == yaml.ScalarNode { // capture: on
			return f.readFlag(&c.Enabled, "capture")(n)
		}
		return f.fields(n, "capture", map[string]func(*yaml.Node) error{
			"enabled":     f.readFlag(&c.Enabled, "enabled"),
			"interval":    f.readInterval(&c.Interval),
			"size":        f.readCaptureSize(&c.Bytes),
			"skip-empty":  f.readFlag(&c.SkipEmpty, "skip-empty"),
			"header-only": f.readFlag(&c.HeaderOnly, "header-only"),
			"format": func(n *yaml.Node) error {
				var err error
				if c.Format, err = hub.ParseCaptureFormat(n.Value); err != nil {
					return f.fail(n, "%v", err)
				}
				return nil
			},
			"name":        f.text(&c.NameFormat, "name"),
			"destination": f.text(&c.Destination, "destination"),
			"container":   f.text(&c.Container, "container"),
			"webhook":     f.secret(&c.Notice.Webhook, "webhook"),
			"notice-hub":  f.text(&c.Notice.Hub, "notice-hub"),
			"event-grid":  f.readFlag(&c.Notice.EventGrid, "event-grid"),
		})
	}
}

func (f *configFile) readFlag(to *bool, what string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		var v *bool
		if err := f.readSwitch(&v, what)(n); err != nil {
			return err
		}
		*to = *v
		return nil
	}
}

func (f *configFile) readInterval(to *time.Duration) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		d, err := time.ParseDuration(n.Value)
		if err != nil || n.Kind != yaml.ScalarNode {
			return f.fail(n, "interval is a time such as 5m, not %s", kindOf(n))
		}
		*to = d
		return nil
	}
}

func (f *configFile) readCaptureSize(to *int64) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		v, err := admin.ParseSize(n.Value)
		if err != nil || n.Kind != yaml.ScalarNode {
			return f.fail(n, "size is one such as 300MiB, not %s", kindOf(n))
		}
		*to = v
		return nil
	}
}

// CaptureDestination is where captured files can go.
type CaptureDestination struct {
	// Name is what hubs' settings call it: for a storage account best the account's
	// own name, which is what resource managers say.
	Name string
	// Kind is folder, azure or s3.
	Kind string
	// Folder is of the kind folder.
	Folder string
	// ConnectionString is of the kind azure: with AccountKey or SharedAccessSignature.
	ConnectionString string
	// Endpoint, a URL, Region, AccessKey and SecretKey are of the kind s3.
	Endpoint, Region, AccessKey, SecretKey string
	// Container is the container or bucket of hubs whose settings name none; ""
	// means "capture". The kind folder has none: Folder is where such files go.
	Container string
	// PathStyle and CheckThenPut are of the kind s3: see s3.Options.
	PathStyle, CheckThenPut bool

	at position
}

// String leaves out what is secret.
func (d CaptureDestination) String() string { return fmt.Sprintf("%s (%s)", d.Name, d.Kind) }

// check tells what is wrong with it, "" if nothing is.
func (d *CaptureDestination) check() string {
	switch {
	case d.Name == "" || strings.Contains(d.Name, "/"):
		return "a capture destination needs a name, without a slash"
	case d.Kind == "folder" && d.Folder == "":
		return "a capture destination of the kind folder needs a folder"
	case d.Kind == "folder" && d.Container != "":
		return "a capture destination of the kind folder has no container: put it at the end of its folder"
	case d.Kind == "azure" && d.ConnectionString == "":
		return "a capture destination of the kind azure needs a connection-string"
	case d.Kind == "s3" && (d.Endpoint == "" || d.AccessKey == "" || d.SecretKey == ""):
		return "a capture destination of the kind s3 needs an endpoint, an access-key and a secret-key"
	case d.Kind != "folder" && d.Kind != "azure" && d.Kind != "s3":
		return fmt.Sprintf("the kind of a capture destination is folder, azure or s3, not %q", d.Kind)
	}
	return ""
}
