package weights

import (
	"math"
	"strings"
)

const onlyTensors = "only tensors and plain containers are built (torch.save(model.state_dict(), ...) writes nothing else)"

// class is one of the few things that a pickle may name.
type class struct {
	name string
	// call is what REDUCE does; nil where naming it is all that is allowed.
	call func(u *unpickler, args []any) any
	// container tells that call may also stand for cls.__new__.
	container bool
	// dtype is set for torch's dtypes and storage classes.
	dtype   *dtype
	storage bool
}

var classes = map[string]*class{}

func init() {
	allow := func(c class, names ...string) {
		for _, n := range names {
			d := c
			d.name = n
			classes[n] = &d
		}
	}
	allow(class{call: newMapping, container: true}, "collections.OrderedDict", "collections.Counter", "builtins.dict", "__builtin__.dict")
	allow(class{call: newDefaultDict, container: true}, "collections.defaultdict")
	allow(class{call: newSequence, container: true}, "builtins.list", "builtins.tuple", "builtins.set", "builtins.frozenset",
		"__builtin__.list", "__builtin__.tuple", "__builtin__.set", "__builtin__.frozenset", "torch.Size", "collections.deque")
	allow(class{call: newBytes}, "_codecs.encode", "builtins.bytearray", "__builtin__.bytearray", "builtins.bytes")
	allow(class{call: newDevice}, "torch.device")
	// A defaultdict names the class of its missing values.
	allow(class{}, "builtins.int", "builtins.float", "builtins.str", "builtins.bool",
		"__builtin__.int", "__builtin__.long", "__builtin__.float", "__builtin__.str", "__builtin__.unicode", "__builtin__.bool")
	// A tensor with attributes names its own class.
	allow(class{}, "torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")

	allow(class{call: rebuildTensor}, "torch._utils._rebuild_tensor")
	allow(class{call: rebuildTensorV2}, "torch._utils._rebuild_tensor_v2")
	allow(class{call: rebuildTensorV3}, "torch._utils._rebuild_tensor_v3")
	allow(class{call: rebuildParameter}, "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
	allow(class{call: rebuildFromType}, "torch._tensor._rebuild_from_type_v2")
	allow(class{call: loadFromBytes}, "torch.storage._load_from_bytes")
	allow(class{dtype: byteType, storage: true}, "torch.storage.UntypedStorage", "torch.storage._UntypedStorage", "torch.UntypedStorage")
	for n, d := range torchStorages {
		allow(class{dtype: d, storage: true}, "torch."+n, "torch.cuda."+n)
	}
	for n, d := range torchTypes {
		allow(class{dtype: d}, "torch."+n)
	}
}

// class looks up a global by its full name: nothing is imported, so nothing else
// can be reached, not by dots in the name either.
func (u *unpickler) class(module, name string) *class {
	c, ok := classes[module+"."+name]
	if !ok {
		fail("names the class or function %s: refused; %s", strings.Trim(quote(module+"."+name), `"`), onlyTensors)
	}
	return c
}

// newMapping makes a dict from nothing, from a list of pairs (Python 2's
// OrderedDict) or from another mapping.
func newMapping(u *unpickler, args []any) any {
	m := &mapping{}
	if len(args) == 0 {
		return m
	}
	if len(args) > 1 {
		fail("a dict made from %d arguments", len(args))
	}
	switch from := args[0].(type) {
	case *mapping:
		u.spend(len(from.pairs))
		m.pairs = append(m.pairs, from.pairs...)
	case *sequence:
		u.spend(len(from.items))
		for _, item := range from.items {
			p, ok := item.(*sequence)
			if !ok || len(p.items) != 2 {
				fail("a dict made from a list without pairs")
			}
			m.pairs = append(m.pairs, pair{p.items[0], p.items[1]})
		}
	default:
		fail("a dict made from %s", describe(from))
	}
	return m
}

func newDefaultDict(u *unpickler, args []any) any {
	if len(args) > 0 {
		switch args[0].(type) {
		case nil, *class: // never called here
		default:
			fail("a defaultdict of %s", describe(args[0]))
		}
		args = args[1:]
	}
	return newMapping(u, args)
}

func newSequence(u *unpickler, args []any) any {
	s := &sequence{}
	if len(args) == 0 {
		return s
	}
	from, ok := args[0].(*sequence)
	if !ok || len(args) > 2 { // a deque has its length as second
		fail("a list made from %s", describe(args[0]))
	}
	u.spend(len(from.items))
	s.items = append(s.items, from.items...)
	return s
}

// newBytes decodes what protocol 2 makes of bytes: text of which each character
// is a byte.
func newBytes(u *unpickler, args []any) any {
	if len(args) == 0 {
		return bytesValue("")
	}
	switch s := args[0].(type) {
	case bytesValue:
		return s
	case string:
		u.spend(len(s) / 64)
		b := make([]byte, 0, len(s))
		for _, r := range s {
			if r > 0xff {
				fail("bytes made from text that is not Latin-1")
			}
			b = append(b, byte(r))
		}
		return bytesValue(b)
	}
	fail("bytes made from %s", describe(args[0]))
	return nil
}

func newDevice(_ *unpickler, args []any) any {
	for _, a := range args {
		if s, ok := a.(string); ok {
			return s
		}
	}
	fail("a torch.device without a name")
	return nil
}

// rebuildTensor: (storage, offset, size, stride).
func rebuildTensor(_ *unpickler, args []any) any {
	if len(args) < 4 {
		fail("a tensor made from %d arguments", len(args))
	}
	st, ok := args[0].(*storage)
	if !ok {
		fail("a tensor made from %s, not a storage", describe(args[0]))
	}
	offset, ok := args[1].(int64)
	if !ok {
		fail("a tensor's offset is %s", describe(args[1]))
	}
	t := &tensor{storage: st, offset: offset, shape: sizes(args[2]), strides: sizes(args[3])}
	if len(t.shape) != len(t.strides) {
		fail("a tensor of %d sizes but %d strides", len(t.shape), len(t.strides))
	}
	return t
}

// rebuildTensorV2 adds (requires_grad, backward_hooks, metadata), the last one for
// tensors whose values are to be negated or conjugated: refused, they would be wrong.
func rebuildTensorV2(u *unpickler, args []any) any {
	if len(args) > 6 {
		refuseMetadata(args[6])
	}
	return rebuildTensor(u, args)
}

// rebuildTensorV3: as V2, with a dtype before the metadata, over a storage of bytes.
func rebuildTensorV3(u *unpickler, args []any) any {
	if len(args) < 7 {
		fail("a tensor made from %d arguments", len(args))
	}
	c, ok := args[6].(*class)
	if !ok || c.dtype == nil || c.storage {
		fail("a tensor whose dtype is %s", describe(args[6]))
	}
	if len(args) > 7 {
		refuseMetadata(args[7])
	}
	t := rebuildTensor(u, args).(*tensor)
	if t.storage.dtype != byteType {
		fail("a tensor of dtype %s over a storage of %s", c.dtype.name, t.storage.dtype.name)
	}
	t.dtype = c.dtype
	return t
}

func refuseMetadata(v any) {
	if m, ok := v.(*mapping); v != nil && (!ok || len(m.pairs) > 0) {
		fail("a tensor with metadata (conjugated or negated): refused")
	}
}

// rebuildParameter: (tensor, requires_grad, backward_hooks[, state]).
func rebuildParameter(_ *unpickler, args []any) any {
	if len(args) == 0 {
		fail("a parameter made from nothing")
	}
	t, ok := args[0].(*tensor)
	if !ok {
		fail("a parameter made from %s", describe(args[0]))
	}
	return t
}

// rebuildFromType: (function, class, arguments, state), for tensors with
// attributes, which are ignored.
func rebuildFromType(u *unpickler, args []any) any {
	if len(args) < 3 {
		fail("a tensor made from %d arguments", len(args))
	}
	f, ok := args[0].(*class)
	inner, ok2 := args[2].(*sequence)
	if !ok || !ok2 {
		fail("a tensor rebuilt by %s from %s", describe(args[0]), describe(args[2]))
	}
	switch f.name {
	case "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3":
		return f.call(u, inner.items)
	}
	fail("a tensor rebuilt by %s: refused", f.name)
	return nil
}

// loadFromBytes reads the storage in a plain pickle: bytes that hold a checkpoint
// of the older format, of one storage.
func loadFromBytes(u *unpickler, args []any) any {
	if len(args) != 1 {
		fail("a storage made from %d arguments", len(args))
	}
	b, ok := args[0].(bytesValue)
	if !ok {
		fail("a storage made from %s", describe(args[0]))
	}
	if u.nested {
		fail("bytes within bytes: refused")
	}
	inner := newUnpickler(strings.NewReader(string(b)), int64(len(b)), u.steps)
	inner.nested = true
	root, err := inner.loadStream(strings.NewReader(string(b)))
	if err != nil {
		fail("inside the bytes of a storage: %w", err)
	}
	st, ok := root.(*storage)
	if !ok {
		fail("the bytes of a storage hold %s", describe(root))
	}
	return st
}

// sizes reads a tuple of shape or strides. torch's own limit is 64 dimensions.
func sizes(v any) []int {
	s, ok := v.(*sequence)
	if !ok {
		fail("a tensor's shape or strides are %s", describe(v))
	}
	if len(s.items) > 64 {
		fail("a tensor of %d dimensions", len(s.items))
	}
	list := make([]int, len(s.items))
	for i, item := range s.items {
		n, ok := item.(int64)
		if !ok || n < 0 || n > math.MaxInt {
			fail("a tensor's shape or strides hold %s or a number out of range", describe(item))
		}
		list[i] = int(n)
	}
	return list
}

// persistent makes the storage that a persistent id describes:
// ("storage", class, key, device, elements[, view]), where view is None or
// (key, offset, elements).
func (u *unpickler) persistent(id any) *storage {
	s, ok := id.(*sequence)
	if !ok || len(s.items) < 5 || len(s.items) > 6 {
		if ok && len(s.items) > 1 && s.items[0] == "module" {
			fail("holds %s, code of a module: refused; %s", describe(s.items[1]), onlyTensors)
		}
		fail("a persistent id that is no storage's")
	}
	if s.items[0] != "storage" {
		fail("a persistent id that is no storage's")
	}
	c, ok := s.items[1].(*class)
	if !ok || !c.storage {
		fail("a storage of %s", describe(s.items[1]))
	}
	key, ok := s.items[2].(string)
	if !ok {
		fail("the key of a storage is %s", describe(s.items[2]))
	}
	n := count(s.items[4])
	st, ok := u.storages[key]
	if !ok {
		st = &storage{key: key, dtype: c.dtype, length: n}
		u.storages[key] = st
	}
	if st.dtype != c.dtype || st.length != n {
		fail("storage %s is described in two ways", quote(key))
	}
	if len(s.items) == 6 && s.items[5] != nil {
		view, ok := s.items[5].(*sequence)
		if !ok || len(view.items) != 3 {
			fail("a view of storage %s that is %s", quote(key), describe(s.items[5]))
		}
		name, _ := view.items[0].(string)
		return &storage{key: name, dtype: c.dtype, root: st, start: count(view.items[1]), length: count(view.items[2])}
	}
	return st
}

// count reads a number of elements so small that its bytes cannot overflow.
func count(v any) int64 {
	n, ok := v.(int64)
	if !ok || n < 0 || n > math.MaxInt64/16 {
		fail("a number of elements that is %s or out of range", describe(v))
	}
	return n
}
