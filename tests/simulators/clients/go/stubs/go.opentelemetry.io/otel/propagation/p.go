package propagation

import "net/http"

type HeaderCarrier http.Header
