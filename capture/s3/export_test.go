package s3

// SetPageSize has lists be read in pages of so many.
func (s *Storage) SetPageSize(n int) { s.pageSize = n }

// SetPartSize has parts be smaller than S3 takes them.
func (s *Storage) SetPartSize(n int64) { s.o.PartSize = n }
