// Package imageset turns image files into the numbers a network reads: lists of
// images, decoding, the transforms of the benchmarks, and a loader that decodes
// ahead of the consumer on many cores.
//
// Pixels are those of Pillow and torchvision, which the published numbers rest
// on: decoding follows Image.open(f).convert("RGB"), JPEG follows libjpeg-turbo's
// defaults bit for bit, resizing is Pillow's antialiased fixed-point resampling,
// and normalising is a float32 subtraction and a true division. EXIF orientation
// is ignored, as it is there.
//
// An Image holds RGB bytes row by row (HWC); a Batch holds float32 images channel
// by channel (N×3×H×W), as networks take them.
package imageset
