package redoubt

import "context"

// NameConflict is a name under which nodes that were cut off from one another each wrote a version of one label without knowing the other's.
// All stand; the newest is current everywhere.
type NameConflict struct {
	Name     ObjectName
	Label    string    // banner
	Versions []Version // one a node, the newest, which is current, first
}

// ConflictService finds conflicts and settles them.
type ConflictService interface {
	// Conflicts gives those at labels that the working label dominates, in the order of their names.
	Conflicts(ctx context.Context, who Credential) ([]NameConflict, error)
	// ResolveConflict writes a new version on top of all of them, with the content of the one kept (empty: the current one): so
	// every node learns that it is settled, and nothing is lost. It is decided as a write. NotFound: there is no conflict that the caller may know of.
	ResolveConflict(ctx context.Context, who Credential, name ObjectName, keep VersionID) (Version, error)
}
