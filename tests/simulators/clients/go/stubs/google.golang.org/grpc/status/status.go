package status

import (
	"fmt"
	"google.golang.org/grpc/codes"
)

func Error(c codes.Code, msg string) error {
	return fmt.Errorf("rpc error: code = %d desc = %s", c, msg)
}
func Errorf(c codes.Code, format string, args ...interface{}) error {
	return Error(c, fmt.Sprintf(format, args...))
}
