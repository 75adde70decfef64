package publicsuffix

import "strings"

type list struct{}

func (list) PublicSuffix(domain string) string { return domain[strings.LastIndex(domain, ".")+1:] }
func (list) String() string                    { return "stub" }

var List list
