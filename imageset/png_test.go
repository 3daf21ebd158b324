package imageset

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"math/rand/v2"
	"os"
	"testing"
)

// pngChunks joins chunks, each a kind of four letters and its content, to a file.
func pngChunks(chunks ...string) []byte {
	file := []byte(pngMagic)
	for _, c := range chunks {
		file = binary.BigEndian.AppendUint32(file, uint32(len(c)-4))
		file = append(file, c...)
		file = binary.BigEndian.AppendUint32(file, crc32.ChecksumIEEE([]byte(c)))
	}
	return file
}

func pngHeader(width, height, depth, colour, interlace int) string {
	h := binary.BigEndian.AppendUint32([]byte("IHDR"), uint32(width))
	return string(append(binary.BigEndian.AppendUint32(h, uint32(height)), byte(depth), byte(colour), 0, 0, byte(interlace)))
}

func deflated(data []byte, level int) string {
	var b bytes.Buffer
	w, err := zlib.NewWriterLevel(&b, level)
	if err != nil {
		panic(err)
	}
	w.Write(data)
	w.Close()
	return b.String()
}

// randomPNG is a file of 8 bits a channel: any bytes are rows, with any filters.
func randomPNG(r *rand.Rand, colour, width, height int) []byte {
	channels := pngChannels[colour]
	var rows []byte
	smooth := r.IntN(2) == 0
	for range height {
		rows = append(rows, byte(r.IntN(5)))
		for range channels * width {
			v := r.IntN(256)
			if smooth {
				v = r.IntN(3) - 1
			}
			rows = append(rows, byte(v))
		}
	}
	chunks := []string{pngHeader(width, height, 8, colour, 0)}
	extra := func() {
		if r.IntN(3) == 0 {
			chunks = append(chunks, "tEXt"+string(make([]byte, r.IntN(9))))
		}
	}
	extra()
	if colour == pngPalette {
		palette := make([]byte, 3*(1+r.IntN(256)))
		for i := range palette {
			palette[i] = byte(r.IntN(256))
		}
		chunks = append(chunks, "PLTE"+string(palette))
		extra()
	}
	stream := deflated(rows, r.IntN(11)-1)
	for r.IntN(2) == 0 {
		n := r.IntN(len(stream) + 1)
		chunks, stream = append(chunks, "IDAT"+stream[:n]), stream[n:]
	}
	chunks = append(chunks, "IDAT"+stream)
	extra()
	return pngChunks(append(chunks, "IEND")...)
}

// agree reports whether d decodes data, and fails if image/png does not agree.
func (d *pngDecoder) agree(t *testing.T, data []byte, maxPixels int) bool {
	t.Helper()
	var got, want Image
	if !d.decode(data, maxPixels, &got) {
		return false
	}
	if err := decodeAnyPNG(data, maxPixels, &want); err != nil {
		t.Fatalf("decoded what image/png does not: %v", err)
	}
	if got.Width != want.Width || got.Height != want.Height || !bytes.Equal(got.Pix, want.Pix) {
		t.Fatalf("%dx%d, image/png: %dx%d; equal pixels: %v", got.Width, got.Height, want.Width, want.Height, bytes.Equal(got.Pix, want.Pix))
	}
	return true
}

var pngColours = []int{pngGrey, pngRGB, pngPalette, pngGreyAlpha, pngRGBA}

// TestPNGAsLibrary decodes files of every colour type and filter as image/png does.
func TestPNGAsLibrary(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var d pngDecoder
	sizes := [][2]int{{1, 1}, {2, 1}, {1, 5}, {7, 3}, {28, 28}, {33, 65}, {300, 200}, {9000, 4}}
	for round := range 20 {
		for _, colour := range pngColours {
			for _, size := range sizes {
				if !d.agree(t, randomPNG(r, colour, size[0], size[1]), MaxPixels) {
					t.Errorf("round %d: colour type %d, %v: left to image/png", round, colour, size)
				}
			}
		}
	}
}

// TestPNGDamaged changes bytes: whatever is decoded, image/png decodes alike.
func TestPNGDamaged(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var d pngDecoder
	decoded := 0
	for range 5000 {
		data := randomPNG(r, pngColours[r.IntN(len(pngColours))], 1+r.IntN(9), 1+r.IntN(9))
		for range 1 + r.IntN(3) {
			data[len(pngMagic)+r.IntN(len(data)-len(pngMagic))] ^= 1 << r.IntN(8)
		}
		if r.IntN(8) > 0 {
			data = sealPNG(data)
		}
		if d.agree(t, data, 1<<20) {
			decoded++
		}
	}
	if decoded < 100 || decoded > 4900 {
		t.Errorf("%d of 5000 damaged files were decoded", decoded)
	}
}

// TestPNGFaults has files that are damaged or odd in ways that a fuzzer hardly finds. None may be
// decoded without image/png.
func TestPNGFaults(t *testing.T) {
	header, rows := pngHeader(2, 2, 8, pngGrey, 0), []byte{0, 1, 2, 0, 3, 4}
	pixels := "IDAT" + deflated(rows, 9)
	badSum := []byte(pixels)
	badSum[len(badSum)-1] ^= 1
	badCRC := pngChunks(header, pixels, "IEND")
	badCRC[len(badCRC)-1] ^= 1
	var d pngDecoder
	if !d.agree(t, pngChunks(header, pixels, "IEND"), MaxPixels) {
		t.Fatal("the file without a fault is not decoded")
	}
	if d.decode(pngChunks(header, pixels, "IEND"), 3, new(Image)) {
		t.Error("4 pixels are decoded where 3 are allowed")
	}
	for name, file := range map[string][]byte{
		"no end":               pngChunks(header, pixels),
		"wrong checksum":       badCRC,
		"wrong stream sum":     pngChunks(header, string(badSum), "IEND"),
		"a row too few":        pngChunks(header, "IDAT"+deflated(rows[:3], 9), "IEND"),
		"a byte too many":      pngChunks(header, "IDAT"+deflated(append(bytes.Clone(rows), 0), 9), "IEND"),
		"bytes after stream":   pngChunks(header, pixels+"x", "IEND"),
		"unknown filter":       pngChunks(header, "IDAT"+deflated([]byte{5, 1, 2, 0, 3, 4}, 9), "IEND"),
		"pixels apart":         pngChunks(header, pixels[:9], "tEXt", "IDAT"+pixels[9:], "IEND"),
		"no pixels":            pngChunks(header, "IEND"),
		"no pixels at all":     pngChunks(header, "IDAT", "IEND"),
		"two headers":          pngChunks(header, header, pixels, "IEND"),
		"end with content":     pngChunks(header, pixels, "IEND!"),
		"palette of grey":      pngChunks(header, "PLTE123", pixels, "IEND"),
		"no palette":           pngChunks(pngHeader(2, 2, 8, pngPalette, 0), pixels, "IEND"),
		"palette late":         pngChunks(pngHeader(2, 2, 8, pngPalette, 0), pixels, "PLTE123", "IEND"),
		"palette cut":          pngChunks(pngHeader(2, 2, 8, pngPalette, 0), "PLTE1234", pixels, "IEND"),
		"palette twice":        pngChunks(pngHeader(2, 2, 8, pngPalette, 0), "PLTE123", "PLTE123", pixels, "IEND"),
		"transparency":         pngChunks(header, "tRNS\x00\x01", pixels, "IEND"),
		"interlaced":           pngChunks(pngHeader(2, 2, 8, pngGrey, 1), pixels, "IEND"),
		"16 bits":              pngChunks(pngHeader(1, 2, 16, pngGrey, 0), pixels, "IEND"),
		"4 bits":               pngChunks(pngHeader(4, 2, 4, pngGrey, 0), pixels, "IEND"),
		"colour type 1":        pngChunks(pngHeader(2, 2, 8, 1, 0), pixels, "IEND"),
		"colour type 7":        pngChunks(pngHeader(2, 2, 8, 7, 0), pixels, "IEND"),
		"no width":             pngChunks(pngHeader(0, 2, 8, pngGrey, 0), pixels, "IEND"),
		"negative width":       pngChunks(pngHeader(-1, 1, 8, pngGrey, 0), pixels, "IEND"),
		"larger than its file": pngChunks(pngHeader(1<<14, 1<<10, 8, pngGrey, 0), pixels, "IEND"),
	} {
		var img Image
		if d.decode(file, 1<<40, &img) {
			t.Errorf("%s: decoded", name)
		}
		if cap(img.Pix) > 3*8 {
			t.Errorf("%s: room for %d bytes", name, cap(img.Pix))
		}
	}
}

func FuzzPNGAsLibrary(f *testing.F) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, colour := range pngColours {
		for range 4 {
			f.Add(randomPNG(r, colour, 1+r.IntN(5), 1+r.IntN(5)))
		}
	}
	for _, data := range pillowFiles(f, "one.png", "la.png", "transparent.png") {
		f.Add(data)
	}
	var d pngDecoder
	f.Fuzz(func(t *testing.T, data []byte) { d.agree(t, sealPNG(bytes.Clone(data)), 1<<20) })
}

// BenchmarkPNG compares with image/png.
func BenchmarkPNG(b *testing.B) {
	r := rand.New(rand.NewPCG(9, 10))
	sets := map[string][]byte{}
	for _, colour := range pngColours {
		sets[fmt.Sprintf("colour-%d-600x400", colour)] = randomPNG(r, colour, 600, 400)
	}
	for _, path := range []string{os.Getenv("NAC_PNG")} {
		if data, err := os.ReadFile(path); err == nil {
			sets["own"] = data
		}
	}
	sets["grey-28x28"] = pngFile(b, image.NewGray(image.Rect(0, 0, 28, 28)))
	for name, data := range sets {
		for kind, decode := range map[string]func([]byte, int, *Image) error{"ours": decodePNG, "library": decodeAnyPNG} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				var img Image
				b.ReportAllocs()
				for b.Loop() {
					if err := decode(data, MaxPixels, &img); err != nil {
						b.Fatal(err)
					}
				}
				b.SetBytes(int64(len(img.Pix)))
			})
		}
	}
}
