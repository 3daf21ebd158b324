// Command gen writes the assembly of package kernel. Run it from
// internal/kernel by `go generate`.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/mmcloughlin/avo/build"
)

func main() {
	isa := flag.String("isa", "avx2", "what to write: avx2, avx512, bf16, winograd, winograd512, depthwise, pool, gram, transformer, transformer512, train, train512 or layout")
	flag.Parse()
	build.ConstraintExpr("!purego")
	switch *isa {
	case "avx2":
		v := vector{suffix: "AVX2", bytes: 32}
		tile(v, 2, rows)
		product(v, 2, rows)
	case "avx512":
		v := vector{suffix: "AVX512", bytes: 64}
		for _, n := range []int{1, 2, 4} {
			tile(v, n, rows)
		}
		for _, n := range []int{1, 2} {
			tile(v, n, tallRows)
			product(v, n, tallRows)
		}
		product(v, 4, rows)
	case "bf16":
		v := vector{suffix: "BF16", bytes: 64, pairs: true}
		for _, n := range []int{1, 2, 4} {
			tile(v, n, rows)
		}
		pairUp(v)
	case "winograd":
		v := vector{suffix: "AVX2", bytes: 32}
		winogradInput(v)
		winogradOutput(v)
		constant := constants()
		winograd4Input(v, constant)
		winograd4Output(v, constant)
		winograd4Gradient(v, constant)
	case "winograd512":
		v := vector{suffix: "AVX512", bytes: 64}
		winogradInput(v)
		winogradOutput(v)
		constant := constants()
		winograd4Input512(constant)
		winograd4Output512(constant)
	case "depthwise":
		depthwise(vector{suffix: "AVX2", bytes: 32})
	case "pool":
		pool(vector{suffix: "AVX2", bytes: 32})
		maximum(vector{suffix: "AVX2", bytes: 32})
	case "gram":
		gramSums(vector{suffix: "AVX2", bytes: 32})
	case "transformer":
		transformer(simd{"AVX2", 32})
		transpose()
	case "transformer512":
		transformer(simd{"AVX512", 64})
	case "train":
		outer(vector{suffix: "AVX2", bytes: 32}, 2)
		combine(vector{suffix: "AVX2", bytes: 32})
		momentSums(vector{suffix: "AVX2", bytes: 32})
	case "layout":
		lanes()
		constant := doubles("winogradFilters")
		winogradFilters(2, constant)
		winogradFilters(4, constant)
	case "train512":
		for _, n := range []int{1, 2, 4} {
			outer(vector{suffix: "AVX512", bytes: 64}, n)
		}
	default:
		fmt.Fprintf(os.Stderr, "gen: unknown instruction set %q\n", *isa)
		os.Exit(2)
	}
	build.Generate()
}
