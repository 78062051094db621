package s3

// SetPageSize has lists be read in pages of so many.
func (s *Storage) SetPageSize(n int) { s.pageSize = n }
