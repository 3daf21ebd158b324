// Command scale tells what data sets of millions of images cost on many machines, and
// simulates those: workers that are slow, die, and do the same work twice.
//
//	go run ./bench/scale
package main

import (
	"bytes"
	"container/heap"
	"fmt"
	"math/rand/v2"

	"nac/shard"
)

// cluster is a set of workers that a scheduler gives shards to. Times are in seconds.
type cluster struct {
	workers  int
	perImage float64 // of a worker at full speed
	start    float64 // of a process: reading the checkpoint and the list
	// slow workers, a share, take factor times as long.
	slow, factor float64
	// fail is the probability that an attempt dies, at a random moment of it.
	fail float64
	// again starts a shard that is still at work a second time, on a worker without work:
	// schedulers call it speculative execution.
	again bool
	seed  uint64
}

// outcome is what a run came to.
type outcome struct {
	seconds                      float64 // until the last shard is there
	busy                         float64 // of all workers
	attempts, failed, duplicates int
	results                      [][]byte // by shard
}

// attempt is a worker at a shard.
type attempt struct {
	end    float64
	worker int
	shard  int
	dies   bool
}

type attempts []attempt

func (a attempts) Len() int           { return len(a) }
func (a attempts) Less(i, j int) bool { return a[i].end < a[j].end }
func (a attempts) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *attempts) Push(x any)        { *a = append(*a, x.(attempt)) }
func (a *attempts) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

// run has all shards of images done. work does one and returns what it leaves; it is called
// for every attempt that ends, so twice for a shard that two workers did, which must
// leave the same.
func (c cluster) run(images, shards int, work func(shard.Shard) ([]byte, error)) (o outcome, err error) {
	r := rand.New(rand.NewPCG(c.seed, 0))
	speed := make([]float64, c.workers)
	for i := range speed {
		speed[i] = 1
		if r.Float64() < c.slow {
			speed[i] = c.factor
		}
	}
	o.results = make([][]byte, shards)
	queue := make([]int, shards)
	for i := range queue {
		queue[i] = i
	}
	atWork := make([]int, shards) // attempts of each shard
	var idle []int
	for i := range c.workers {
		idle = append(idle, i)
	}
	running := &attempts{}
	now := 0.0
	begin := func(worker, s int) {
		first, last := shard.Shard{Index: s, Of: shards}.Range(images)
		took := c.start + float64(last-first)*c.perImage*speed[worker]
		dies := r.Float64() < c.fail
		if dies {
			took *= r.Float64()
		}
		atWork[s]++
		o.attempts++
		o.busy += took
		heap.Push(running, attempt{now + took, worker, s, dies})
	}
	for done := 0; done < shards; {
		for len(idle) > 0 && len(queue) > 0 {
			begin(idle[0], queue[0])
			idle, queue = idle[1:], queue[1:]
		}
		if c.again && len(idle) > 0 {
			for s := 0; s < shards && len(idle) > 0; s++ {
				if o.results[s] == nil && atWork[s] == 1 {
					begin(idle[0], s)
					idle = idle[1:]
				}
			}
		}
		a := heap.Pop(running).(attempt)
		now = a.end
		atWork[a.shard]--
		idle = append(idle, a.worker)
		if a.dies {
			o.failed++
			if o.results[a.shard] == nil && atWork[a.shard] == 0 {
				queue = append(queue, a.shard)
			}
			continue
		}
		left, err := work(shard.Shard{Index: a.shard, Of: shards})
		if err != nil {
			return o, err
		}
		if had := o.results[a.shard]; had != nil {
			o.duplicates++
			if !bytes.Equal(had, left) {
				return o, fmt.Errorf("shard %d: done twice, it left something else", a.shard)
			}
			continue
		}
		o.results[a.shard] = left
		done++
	}
	o.seconds = now
	return o, nil
}
