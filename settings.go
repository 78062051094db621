package millrace

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/store/segment"
)

// Setting is one thing that a person can set: with the flag --NAME, with the
// environment's MILLRACE_NAME, or with the key NAME of the configuration file.
// The first of them that is given counts.
type Setting struct {
	Name    string
	Default string
	Usage   string // for --help
	Value   string // what stands for the value there; "" for a switch
	set     func(*Options, string) error
}

// Env is the name of the environment's variable.
func (s Setting) Env() string {
	return "MILLRACE_" + strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
}

// Switch tells whether the setting is on or off.
func (s Setting) Switch() bool { return s.Value == "" }

// The settings that say where others come from, or go to; they are not part of
// Options.
const (
	configSetting    = "config"
	logLevelSetting  = "log-level"
	logFormatSetting = "log-format"
)

// DefaultData is the data folder of a broker that is told of none.
const DefaultData = "millrace-data"

// Settings returns all settings, in the order of --help.
func Settings() []Setting {
	text := func(to func(*Options) *string) func(*Options, string) error {
		return func(o *Options, v string) error { *to(o) = v; return nil }
	}
	onOff := func(to func(*Options) *bool) func(*Options, string) error {
		return func(o *Options, v string) (err error) { *to(o), err = parseSwitch(v); return err }
	}
	all := []Setting{
		{configSetting, "", "configuration file: Millrace's own YAML, or the Event Hubs emulator's Config.json", "FILE", nil},
		{"data", DefaultData, "data folder, made if absent", "DIR", text(func(o *Options) *string { return &o.Data })},
		{"ephemeral", "", "keep everything in a temporary folder that is removed at the end", "", onOff(func(o *Options) *bool { return &o.Ephemeral })},
		{"sync", "always", "when an event is acknowledged: always (on disk), interval=DURATION (on disk at most that much later), never (left to the system)", "POLICY", setSync},
		{"advertise", "", "host that clients are told to connect to", "HOST", text(func(o *Options) *string { return &o.Advertise })},
		{"tls-cert", "", "certificate in PEM, instead of one of the local authority", "FILE", text(func(o *Options) *string { return &o.TLSCert })},
		{"tls-key", "", "the certificate's key in PEM", "FILE", text(func(o *Options) *string { return &o.TLSKey })},
		{"entra", "off", "Microsoft Entra tokens: off, accept-any (loopback only), or the URL of an issuer to verify", "MODE", setEntra},
		{"insecure-dev-keys", "", "let the public development keys work beyond loopback", "", onOff(func(o *Options) *bool { return &o.InsecureDevKeys })},
		{"allow-faults", "", "let \"millrace fault\" break things on purpose, for tests of applications", "", onOff(func(o *Options) *bool { return &o.AllowFaults })},
		{"endpoints", "", "file to write every door's address and the connection strings to, once all accept", "FILE", text(func(o *Options) *string { return &o.Endpoints })},
		{logLevelSetting, "info", "debug, info, warn or error", "LEVEL", nil},
		{logFormatSetting, "text", "text or json", "FORMAT", nil},
	}
	for _, d := range []struct {
		door         Door
		addr, serves string
	}{
		{AMQP, "localhost:5672", "AMQP, plain"},
		{AMQPS, "localhost:5671", "AMQP over TLS"},
		{Kafka, "off", "Kafka, plain (not in this version)"},
		{Kafkas, "off", "Kafka over TLS (not in this version)"},
		{HTTP, "localhost:5300", "HTTP: sending, /health, /metrics, management, AMQP over WebSocket"},
		{HTTPS, "localhost:5443", "the same over TLS"},
		{Blob, "localhost:10000", "Blob REST, for checkpoints"},
	} {
		all = append(all, Setting{string(d.door), d.addr, d.serves + "; off closes the door, port 0 takes a free one", "HOST:PORT", func(o *Options, v string) error {
			_, err := parseDoor(d.door, v)
			o.Listen[d.door] = v
			return err
		}})
	}
	return all
}

func setSync(o *Options, v string) error {
	_, err := segment.ParseSync(v)
	o.Sync = v
	return err
}

func setEntra(o *Options, v string) error {
	e, err := auth.ParseEntra(v)
	o.Entra.AcceptAny, o.Entra.Issuer = e.AcceptAny, e.Issuer
	return err
}

func parseSwitch(v string) (bool, error) {
	switch strings.ToLower(v) {
	case "true", "yes", "on", "1", "y":
		return true, nil
	case "false", "no", "off", "0", "n", "":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", v)
}

// Sources are where Load looks. The zero value reads the environment of the
// process, and logs to standard error.
type Sources struct {
	// Flags has the flags that were given, by their names without dashes.
	Flags map[string]string
	// Env looks a variable up; nil means os.LookupEnv.
	Env func(string) (string, bool)
	// Stderr is what the logger writes to; nil means os.Stderr.
	Stderr io.Writer
}

// loading is a Load under way.
type loading struct {
	Sources
	file *configFile // nil if there is none
	log  *slog.Logger
}

// Load reads Options from flags, the environment, the configuration file and
// the defaults, in this order of precedence, and makes their logger. The error
// says which source holds what is wrong: the flag, the variable, or the file and
// line. Nothing but the configuration file is opened.
//
// ACCEPT_EULA=Y in the environment says that it was made for the Event Hubs
// emulator: every door then binds all interfaces unless it is told otherwise,
// and the public development keys work.
func Load(s Sources) (Options, error) {
	l := &loading{Sources: s}
	if l.Env == nil {
		l.Env = os.LookupEnv
	}
	if l.Stderr == nil {
		l.Stderr = os.Stderr
	}
	if err := l.readFile(); err != nil {
		return Options{}, err
	}
	if err := l.makeLogger(); err != nil {
		return Options{}, err
	}
	o := Options{Listen: map[Door]string{}, Logger: l.log}
	emulator := l.forEmulator()
	for _, setting := range Settings() {
		if setting.set == nil {
			continue
		}
		if emulator && isDoor(Door(setting.Name)) {
			setting.Default = strings.Replace(setting.Default, "localhost:", ":", 1)
		}
		v, from, source := l.lookup(setting)
		if source == sourceDefault && v == "" {
			continue
		}
		if err := setting.set(&o, v); err != nil {
			return Options{}, fmt.Errorf("%s: %w", from, err)
		}
	}
	l.settleEphemeral(&o)
	if emulator {
		o.InsecureDevKeys = true
	}
	if l.file != nil {
		l.file.apply(&o)
	}
	if _, err := o.check(); err != nil {
		return Options{}, err
	}
	return o, nil
}

// The sources of a setting, in the order of their precedence.
const (
	sourceFlag = iota
	sourceEnv
	sourceFile
	sourceDefault
)

// lookup returns a setting's value, and where it was found.
func (l *loading) lookup(s Setting) (value, from string, source int) {
	if v, ok := l.Flags[s.Name]; ok {
		return v, "--" + s.Name, sourceFlag
	}
	if v, ok := l.Env(s.Env()); ok && v != "" {
		return v, s.Env(), sourceEnv
	}
	if l.file != nil {
		if v, ok := l.file.settings[s.Name]; ok {
			return v.text, v.at.String() + s.Name, sourceFile
		}
	}
	return s.Default, "the default of --" + s.Name, sourceDefault
}

// settleEphemeral lets the source that comes first decide between a temporary
// folder and a lasting one: --ephemeral over a MILLRACE_DATA that a container
// image sets, and the other way round. Named by the same source, both stay, and
// are refused.
func (l *loading) settleEphemeral(o *Options) {
	if !o.Ephemeral {
		return
	}
	_, _, ephemeral := l.lookup(setting("ephemeral"))
	_, _, data := l.lookup(setting("data"))
	_, _, sync := l.lookup(setting("sync"))
	if min(data, sync) < ephemeral {
		o.Ephemeral = false
		return
	}
	if data > ephemeral {
		o.Data = ""
	}
	if sync > ephemeral {
		o.Sync = ""
	}
}

func setting(name string) Setting {
	for _, s := range Settings() {
		if s.Name == name {
			return s
		}
	}
	return Setting{}
}

// emulatorConfig is where the emulator's containers have their configuration.
const emulatorConfig = "/Eventhubs_Emulator/ConfigFiles/Config.json"

// readFile finds and reads the configuration file, if there is one.
func (l *loading) readFile() error {
	path, _, _ := l.lookup(setting(configSetting))
	if path == "" {
		if _, err := os.Stat(emulatorConfig); err != nil {
			return nil
		}
		path = emulatorConfig
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("the configuration file can't be read: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return fmt.Errorf("the configuration file can't be read: %w", err)
	}
	l.file, err = parseConfig(path, b)
	return err
}

func (l *loading) makeLogger() error {
	var level slog.Level
	text, from, _ := l.lookup(setting(logLevelSetting))
	if err := level.UnmarshalText([]byte(text)); err != nil {
		return fmt.Errorf("%s: %q is not one of debug, info, warn, error", from, text)
	}
	o := &slog.HandlerOptions{Level: level}
	switch text, from, _ := l.lookup(setting(logFormatSetting)); text {
	case "text":
		l.log = slog.New(slog.NewTextHandler(l.Stderr, o))
	case "json":
		l.log = slog.New(slog.NewJSONHandler(l.Stderr, o))
	default:
		return fmt.Errorf("%s: %q is neither text nor json", from, text)
	}
	return nil
}

// forEmulator tells whether the environment is one made for the emulator, and
// says what of it means nothing here.
func (l *loading) forEmulator() bool {
	for _, name := range []string{"BLOB_SERVER", "METADATA_SERVER"} {
		if v, ok := l.Env(name); ok {
			l.log.Info("a variable of the emulator's is ignored: Millrace keeps events and metadata itself", "name", name, "value", v)
		}
	}
	v, _ := l.Env("ACCEPT_EULA")
	accepted, err := parseSwitch(v)
	return accepted && err == nil
}
