// Package redoubt holds the nouns and the service contracts of a nation's own cloud.
package redoubt
