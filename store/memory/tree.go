package memory

import "hash/fnv"

// node is a treap whose nodes never change once reachable from a root: a view keeps
// the root it was given and needs no lock. The priority of a key is its hash, so
// the shape depends on the keys alone.
type node struct {
	key         string
	value       []byte
	priority    uint64
	left, right *node
}

func (n *node) find(key string) (*node, bool) {
	for n != nil && n.key != key {
		if key < n.key {
			n = n.left
		} else {
			n = n.right
		}
	}
	return n, n != nil
}

// ceiling is the first node at or after key.
func (n *node) ceiling(key string) (best *node) {
	for n != nil {
		if n.key >= key {
			best, n = n, n.left
		} else {
			n = n.right
		}
	}
	return best
}

// with returns the tree in which key holds value.
func (n *node) with(key string, value []byte) *node {
	less, more := n.without(key).split(key)
	return join(join(less, &node{key: key, value: value, priority: priority(key)}), more)
}

// without returns the tree in which key is absent.
func (n *node) without(key string) *node {
	switch {
	case n == nil:
		return nil
	case key == n.key:
		return join(n.left, n.right)
	}
	c := *n
	if key < n.key {
		c.left = n.left.without(key)
	} else {
		c.right = n.right.without(key)
	}
	return &c
}

// split parts the keys below key from the others.
func (n *node) split(key string) (less, more *node) {
	if n == nil {
		return nil, nil
	}
	c := *n
	if n.key < key {
		c.right, more = n.right.split(key)
		return &c, more
	}
	less, c.left = n.left.split(key)
	return less, &c
}

// join puts two trees together; every key of a is below every key of b.
func join(a, b *node) *node {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	if a.priority > b.priority {
		c := *a
		c.right = join(a.right, b)
		return &c
	}
	c := *b
	c.left = join(a, b.left)
	return &c
}

func priority(key string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(key))
	return h.Sum64() * 0x9e3779b97f4a7c15 // FNV alone leaves the high bits of like keys alike
}
