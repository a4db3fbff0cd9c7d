package filter

import (
	"encoding/json"

	"redoubt/guard"
)

// CheckSchema says whether a schema of a type is closed: nothing may stand in a content that it does not name and bound. The error's text names
// the place. An administrator's tool asks it before a schema is taken up.
func CheckSchema(mediaType string, schema []byte) (err error) {
	switch mediaType {
	case JSON:
		_, err = compile(schema)
	case XML:
		_, err = readXSD(schema)
	case CSV:
		_, err = readTable(schema)
	case ZIP:
		var members map[string]json.RawMessage
		if members, err = memberSchemas(schema); err != nil {
			return err
		}
		for pattern, s := range members {
			if err := CheckSchema(guard.MemberType(pattern), schemaText(s)); err != nil {
				return refuse(schemaOpen, "members %q: %v", clip(pattern), err)
			}
		}
	default:
		return refuse("take it out", "content of type %q has no schema", clip(mediaType))
	}
	return err
}
