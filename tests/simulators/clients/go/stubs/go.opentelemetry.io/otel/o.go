package otel

import (
	"context"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

type propagator struct{}

func (propagator) Inject(ctx context.Context, c propagation.HeaderCarrier) {}
func GetTextMapPropagator() propagator                                     { return propagator{} }
func Tracer(name string, o ...trace.Option) trace.Tracer                   { return trace.Tracer{} }
