// Package states keeps what a network yields for sets of images in a folder, a
// cache, so that detectors are fitted and settings are searched without running the
// network again. It knows neither networks nor images: it takes batches of logits,
// penultimate features and pooled neuron states, and gives them back bit for bit.
//
//	DIR/cache.json              what the cache was made of: Identity
//	DIR/SET/list.txt            the images, lines of "path label"
//	DIR/SET/00000.safetensors   what the network yielded for the first of them
//	DIR/SET/00001.safetensors   ... and so on
//	DIR/SET/set.json            written last: the set is complete
//
// A shard covers a fixed run of the list. Its tensors have one row an image:
//
//	positions    I32 [n]     place of the image in the list, from 0
//	labels       I32 [n]     class, negative for none
//	predictions  I32 [n]     class with the largest logit
//	correct      BOOL [n]    labels == predictions
//	logits       F32 [n,K]
//	feature      F32 [n,F]   penultimate feature
//	LAYER.z      F32 [n,C]   pooled activation of each neuron
//	LAYER.g      F32 [n,C]   pooled gradient of KL(uniform || softmax), if extracted
//
// An image that was skipped because it could not be read has no row. Every tensor's
// SHA-256 stands in the shard's metadata and is compared when it is read; the
// SHA-256 of whole shards stand in set.json.
//
// Files appear whole or not at all. A run that was killed is taken up at the first
// shard that is missing and ends in the same bytes as one that was not.
package states
