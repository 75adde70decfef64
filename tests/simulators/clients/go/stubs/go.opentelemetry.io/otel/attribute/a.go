package attribute

type KeyValue struct{}

func String(k, v string) KeyValue      { return KeyValue{} }
func Int(k string, v int) KeyValue     { return KeyValue{} }
func Int64(k string, v int64) KeyValue { return KeyValue{} }
