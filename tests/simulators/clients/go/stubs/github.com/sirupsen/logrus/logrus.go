package logrus

import (
	"fmt"
	"os"
)

type Fields map[string]interface{}
type Entry struct{ fields Fields }

func say(text string) {
	if os.Getenv("VERBOSE") != "" {
		fmt.Fprintln(os.Stderr, text)
	}
}
func WithFields(f Fields) *Entry                   { return &Entry{f} }
func (e *Entry) Error(a ...interface{})            { say(fmt.Sprint(a...) + fmt.Sprint(e.fields)) }
func (e *Entry) Debug(a ...interface{})            {}
func (e *Entry) Info(a ...interface{})             {}
func (e *Entry) Infof(f string, a ...interface{})  {}
func (e *Entry) Errorf(f string, a ...interface{}) { say(fmt.Sprintf(f, a...)) }
func (e *Entry) Warnf(f string, a ...interface{})  {}
func Error(a ...interface{})                       { say(fmt.Sprint(a...)) }
func Errorf(f string, a ...interface{})            { say(fmt.Sprintf(f, a...)) }
func Debug(a ...interface{})                       {}
func Debugf(f string, a ...interface{})            {}
func Info(a ...interface{})                        {}
func Infof(f string, a ...interface{})             {}
func Warn(a ...interface{})                        {}
func Warnf(f string, a ...interface{})             {}
func Warningf(f string, a ...interface{})          {}
