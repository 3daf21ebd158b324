package imageset_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"testing/fstest"

	"nac/imageset"
)

// Read a list, decode it ahead on all cores and hand batches to a network. A
// broken file is left out and reported.
func Example() {
	files := fstest.MapFS{ // in place of a folder; ReadList takes one
		"lists/val.txt":    {Data: []byte("cat/1.bmp 0\ncat/2.bmp 0\ndog/1.bmp 1\n")},
		"images/cat/1.bmp": {Data: onePixel},
		"images/cat/2.bmp": {Data: onePixel[:30]},
		"images/dog/1.bmp": {Data: onePixel},
	}
	list, err := imageset.ReadListFS(files, "lists/val.txt", "images")
	if err != nil {
		log.Fatal(err)
	}
	transform, err := imageset.Preset("cifar10")
	if err != nil {
		log.Fatal(err)
	}
	loader := imageset.Load(context.Background(), list, imageset.LoadOptions{
		Transform: transform,
		BatchSize: 200,
		OnError:   imageset.Skip,
	})
	defer loader.Close()
	for {
		batch, err := loader.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(batch.N, "images, labels", batch.Labels, "positions", batch.Index, "values", len(batch.Images))
		batch.Release()
	}
	for _, err := range loader.Skipped() {
		fmt.Println(err)
	}
	// Output:
	// 2 images, labels [0 1] positions [0 2] values 6144
	// image list val: image images/cat/2.bmp: BMP: the file ends too early
}

// onePixel is a BMP of one pixel, which the transform enlarges.
var onePixel = []byte("BM\x3a\x00\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00" +
	"\x28\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x18\x00" +
	"\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x01\x02\x03\x00")
