package azure

// SetPageSize has lists be read in pages of so many.
func (s *Storage) SetPageSize(n int32) { s.pageSize = &n }
