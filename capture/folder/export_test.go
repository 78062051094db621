package folder

// SetLink has another function give files their second names: one that can't, as
// between disks.
func (f *Folder) SetLink(link func(from, to string) error) { f.link = link }

// Unfinished is the name of a file while it is being copied.
var Unfinished = unfinished

// RenameNew renames to a name that is free.
var RenameNew = renameNew
