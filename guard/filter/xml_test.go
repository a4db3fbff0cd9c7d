package filter_test

import (
	"strings"
	"testing"

	"redoubt/guard"
	"redoubt/guard/filter"
)

// reportSchema is a closed schema of a short report.
const reportSchema = `<?xml version="1.0"?>
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
  <xs:simpleType name="name"><xs:restriction base="xs:string"><xs:maxLength value="20"/></xs:restriction></xs:simpleType>
  <xs:simpleType name="code"><xs:restriction base="xs:string"><xs:maxLength value="5"/><xs:pattern value="[A-Z]{2}[0-9]*"/></xs:restriction></xs:simpleType>
  <xs:simpleType name="degrees"><xs:restriction base="xs:decimal"><xs:minInclusive value="-180"/><xs:maxInclusive value="180"/></xs:restriction></xs:simpleType>
  <xs:complexType name="point"><xs:attribute name="lat" type="degrees" use="required"/><xs:attribute name="lon" type="degrees"/></xs:complexType>
  <xs:element name="report"><xs:complexType>
    <xs:sequence>
      <xs:element name="title" type="name"/>
      <xs:element name="at" type="point" minOccurs="0" maxOccurs="3"/>
      <xs:element name="seen" type="xs:dateTime" minOccurs="0"/>
      <xs:element name="who" minOccurs="0"><xs:complexType><xs:choice><xs:element name="air" type="code"/><xs:element name="sea" type="code"/></xs:choice></xs:complexType></xs:element>
      <xs:element name="size" minOccurs="0"><xs:complexType><xs:simpleContent><xs:extension base="degrees"><xs:attribute name="unit" type="code"/></xs:extension></xs:simpleContent></xs:complexType></xs:element>
    </xs:sequence>
  </xs:complexType></xs:element>
</xs:schema>`

func report(in string) guard.Content {
	return guard.Content{Type: filter.XML, Schema: []byte(reportSchema), Bytes: []byte(in)}
}

func TestXMLLeavesInOneSpelling(t *testing.T) {
	s := newSet(t)
	const decl = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
	for in, want := range map[string]string{
		"<report><title>a</title></report>": "<report><title>a</title></report>",
		"<?xml version='1.0' encoding='utf-8'?>\n<report>\n  <title><![CDATA[a & b]]></title>\n  <at lon='1.50' lat='&#49;'></at>\n</report>\n":        "<report><title>a &amp; b</title><at lat=\"1\" lon=\"1.5\"/></report>",
		"<report><title>gr\u00f6\u00dfe\u200b</title><seen> 2026-01-02T03:04:05Z </seen><who><sea>AB12</sea></who><size unit='KM'>1.0</size></report>": "<report><title>gr\u00f6\u00dfe</title><seen>2026-01-02T03:04:05Z</seen><who><sea>AB12</sea></who><size unit=\"KM\">1</size></report>",
		"<report><title>a \n b&#32;</title></report>": "<report><title>a\n b</title></report>",
		"<report><title/></report>":                   "<report><title/></report>",
		"<report><title/><seen>2026-01-02T03:04:05." + strings.Repeat("3141592653", 5000) + "+02:00</seen></report>": "<report><title/><seen>2026-01-02T01:04:05.314159265Z</seen></report>",
	} {
		passes(t, s, report(in), decl+want+"\n")
	}
}

func TestXMLThatIsNotWhatItsSchemaSaysIsRefused(t *testing.T) {
	s := newSet(t)
	laughs := "<!DOCTYPE r [<!ENTITY a 'ha'>"
	for range 20 {
		laughs += "<!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>"
	}
	for in, rule := range map[string]string{
		laughs + "]><report><title>&b;</title></report>":                                            "document type",
		"<!DOCTYPE report SYSTEM 'file:///etc/passwd'><report><title>a</title></report>":            "document type",
		"<!DOCTYPE r [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><report><title>&x;</title></report>": "document type",
		"<report><title>&x;</title></report>":                                                       "not XML",
		"<report><title>a</title><!-- c --></report>":                                               "comment",
		"<?php x?><report><title>a</title></report>":                                                "processing",
		"<report><title>a</title><?pi x?></report>":                                                 "processing",
		"<report><title>a</title></report><report/>":                                                "follows",
		"<report><title>a</title></report>x":                                                        "outside",
		"<report><title>a</title></report>PK\x03\x04":                                               "",
		"<report><title>a</title>":                                                                  "not XML",
		"<report><title>a</title>text</report>":                                                     "text",
		"<report xmlns='urn:x'><title>a</title></report>":                                           "namespace",
		"<x:report xmlns:x='urn:x'><title>a</title></x:report>":                                     "namespace",
		"<report><title x='1'>a</title></report>":                                                   "no such attribute",
		"<report><title>a</title><at lat='1' lat='2'/></report>":                                    "",
		"<report><title>a</title><at lon='1'/></report>":                                            "missing",
		"<report><title>a</title><at lat='181'/></report>":                                          "schema",
		"<report><title>a</title><at lat='1e1'/></report>":                                          "schema",
		"<report><title>" + strings.Repeat("a", 21) + "</title></report>":                           "schema",
		"<report/>": "stands 0 times",
		"<report><at lat='1'/><title>a</title></report>":                              "stands 0 times",
		"<report><title>a</title>" + strings.Repeat("<at lat='1'/>", 4) + "</report>": "has none there",
		"<report><title>a</title><who><air>AB</air><sea>AB</sea></who></report>":      "choice",
		"<report><title>a</title><who/></report>":                                     "choice",
		"<report><title>a</title><who><air>ab</air></who></report>":                   "schema",
		"<other/>": "root",
		"":         "no element",
		"<report><title>a\u202eb</title></report>":                                 "direction",
		"<report><title>p\u0430ss</title></report>":                                "look like",
		"<?xml version='1.0' encoding='UTF-16'?><report><title>a</title></report>": "",
		strings.Repeat("<report>", 100000):                                         "in one another",
		"\xff\xfe<\x00":                                                            "UTF-8",
		"<report><title>%PDF-1.4</title></report>":                                 "begins as another type",
	} {
		refused(t, s, report(in), rule)
	}
}

func TestXMLWithoutAClosedSchemaIsRefused(t *testing.T) {
	s := newSet(t)
	in := []byte("<a>x</a>")
	refused(t, s, guard.Content{Type: filter.XML, Bytes: in}, "without a schema")
	for _, body := range []string{
		"", "<xs:element name='a' type='xs:string'/>", "<xs:element name='a' type='xs:anyType'/>", "<xs:element name='a'/>", "<xs:element name='a'><xs:complexType><xs:sequence><xs:any/></xs:sequence></xs:complexType></xs:element>",
		"<xs:element name='a'><xs:complexType mixed='true'/></xs:element>", "<xs:element name='a'><xs:complexType><xs:anyAttribute/></xs:complexType></xs:element>", "<xs:include schemaLocation='file:///etc/passwd'/><xs:element name='a' type='xs:boolean'/>",
		"<xs:import namespace='urn:x'/><xs:element name='a' type='xs:boolean'/>", "<xs:element name='a' type='none'/>", "<xs:element name='a' type='xs:boolean'/><xs:element name='b' type='xs:boolean'/>",
		"<xs:element name='a'><xs:simpleType><xs:restriction base='xs:string'/></xs:simpleType></xs:element>", "<xs:element name='a'><xs:simpleType><xs:restriction base='xs:integer'/></xs:simpleType></xs:element>",
		"<xs:element name='a'><xs:simpleType><xs:restriction base='xs:string'><xs:maxLength value='5'/><xs:pattern value='^a$'/></xs:restriction></xs:simpleType></xs:element>",
		"<xs:element name='a'><xs:complexType><xs:sequence><xs:element name='b' type='xs:boolean' maxOccurs='unbounded'/></xs:sequence></xs:complexType></xs:element>",
		"<xs:element name='a'><xs:complexType><xs:sequence><xs:element name='b' type='xs:boolean' maxOccurs='100001'/></xs:sequence></xs:complexType></xs:element>",
		"<xs:element name='a' type='xs:boolean' default='true'/>", "<xs:element name='a'><xs:simpleType><xs:union memberTypes='xs:string'/></xs:simpleType></xs:element>",
	} {
		refused(t, s, guard.Content{Type: filter.XML, Schema: []byte("<xs:schema xmlns:xs='http://www.w3.org/2001/XMLSchema'>" + body + "</xs:schema>"), Bytes: in}, "schema")
	}
}
