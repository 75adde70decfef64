package klog

import (
	"fmt"
	"os"
)

type Level int32
type Verbose struct{ on bool }

func V(level Level) Verbose                                { return Verbose{false} }
func (v Verbose) Infof(format string, args ...interface{}) {}
func (v Verbose) Info(args ...interface{})                 {}
func Infof(format string, args ...interface{})             {}
func Info(args ...interface{})                             {}
func Errorf(format string, args ...interface{}) {
	if os.Getenv("VERBOSE") != "" {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
}
func Error(args ...interface{})                   {}
func Warningf(format string, args ...interface{}) {}
func Fatalf(format string, args ...interface{}) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}
