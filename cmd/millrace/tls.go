package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace"
)

func newTLS() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tls",
		Short: "The local certificate authority: its root, and certificates signed by it",
		Long: "Each data folder has a certificate authority of its own, made when it is first needed. The broker's TLS doors\n" +
			"show a certificate signed by it, so a client has to trust its root.",
	}
	cmd.AddCommand(newTLSCA(), newTLSIssue())
	return cmd
}

// dataFlag gives a command the flag --data, with serve's default and twin.
func dataFlag(cmd *cobra.Command) *string {
	value := millrace.DefaultData
	if v := os.Getenv("MILLRACE_DATA"); v != "" {
		value = v
	}
	return cmd.Flags().String("data", value, "data folder, `DIR`")
}

func newTLSCA() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ca",
		Short:   "Print the root certificate, for a client's trust store",
		Example: "  millrace tls ca > millrace-ca.pem\n  SSL_CERT_FILE=millrace-ca.pem python producer.py",
		Args:    arguments(cobra.NoArgs),
	}
	data := dataFlag(cmd)
	file := cmd.Flags().String("out", "", "`FILE` to write instead of standard output")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		a, err := millrace.OpenAuthority(*data, nil)
		if err != nil {
			return err
		}
		if *file == "" {
			_, err = cmd.OutOrStdout().Write(a.Root)
			return err
		}
		if err := os.WriteFile(*file, a.Root, 0o644); err != nil { //nolint:gosec // a root is for everyone to read
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Wrote the root certificate to %s.\n", *file)
		return nil
	}
	return cmd
}

func newTLSIssue() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "issue NAME…",
		Short: "Sign a certificate for host names and addresses",
		Long: "Sign a certificate, good for 397 days, for host names and addresses, and write it with its key as PEM files:\n" +
			"FIRST-NAME.pem and FIRST-NAME-key.pem, which \"millrace serve\" takes as --tls-cert and --tls-key.",
		Example: "  millrace tls issue broker.lan 192.168.1.20 --dir certificates",
		Args:    arguments(cobra.MinimumNArgs(1)),
	}
	data := dataFlag(cmd)
	dir := cmd.Flags().String("dir", ".", "folder, `DIR`, for the two files")
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		a, err := millrace.OpenAuthority(*data, nil)
		if err != nil {
			return err
		}
		cert, key, err := a.Issue(names)
		if err != nil {
			return err
		}
		base := strings.NewReplacer("*", "any", ":", "-").Replace(names[0])
		certFile, keyFile := filepath.Join(*dir, base+".pem"), filepath.Join(*dir, base+"-key.pem")
		if err := writeNew(keyFile, key, 0o600); err != nil {
			return err
		}
		if err := writeNew(certFile, cert, 0o644); err != nil {
			os.Remove(keyFile)
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Wrote the certificate to %s and its key to %s.\n", certFile, keyFile)
		return nil
	}
	return cmd
}

// writeNew writes a file that must not be there yet: a key in use can't be had
// back.
func writeNew(path string, b []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already; move it away, or choose another folder with --dir", path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
