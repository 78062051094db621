package millrace

// descriptorLimit: Windows has none worth naming.
func descriptorLimit() (soft, hard uint64, ok bool) { return 0, 0, false }
