package drift

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// Store keeps states of Monitors in one file (bbolt), across restarts. What Save
// returned from is on disk, and a process killed in the middle of Save leaves what
// was there before.
type Store struct{ db *bbolt.DB }

// The buckets hold states by name, and by name buckets of files: path to version.
var bucket, fileBucket = []byte("drift.1"), []byte("files.1")

// OpenStore opens a store, made if need be. Only one process at a time can have it open.
func OpenStore(path string) (*Store, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("drift: %s is in use by another process", path)
	}
	if err != nil {
		return nil, fmt.Errorf("drift: %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		if err == nil {
			_, err = tx.CreateBucketIfNotExists(fileBucket)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("drift: %s: %w", path, errors.Join(err, db.Close()))
	}
	return &Store{db}, nil
}

// Save writes states by name, and with them the files whose scores they have seen: by
// the state's name and the path a text that tells the file's versions apart. All is
// written or nothing, so that no score is counted twice or lost.
func (s *Store) Save(states map[string]State, files map[string]map[string]string) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		for name, state := range states {
			text, err := json.Marshal(state)
			if err != nil {
				return fmt.Errorf("drift: %s: %w", name, err)
			}
			if err := tx.Bucket(bucket).Put([]byte(name), text); err != nil {
				return fmt.Errorf("drift: %s: %w", name, err)
			}
		}
		for name, versions := range files {
			b, err := tx.Bucket(fileBucket).CreateBucketIfNotExists([]byte(name))
			if err != nil {
				return fmt.Errorf("drift: %s: %w", name, err)
			}
			for path, version := range versions {
				if err := b.Put([]byte(path), []byte(version)); err != nil {
					return fmt.Errorf("drift: %s: %s: %w", name, path, err)
				}
			}
		}
		return nil
	})
}

// File returns the version of a file that was stored with a state, "" if none was.
func (s *Store) File(name, path string) (version string, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(fileBucket).Bucket([]byte(name)); b != nil {
			version = string(b.Get([]byte(path)))
		}
		return nil
	})
	return version, err
}

// Forget deletes the files of a state that are gone.
func (s *Store) Forget(name string, gone func(path string) bool) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(fileBucket).Bucket([]byte(name))
		if b == nil {
			return nil
		}
		c := b.Cursor()
		for k, _ := c.First(); k != nil; {
			if !gone(string(k)) {
				k, _ = c.Next()
				continue
			}
			next := append([]byte(nil), k...)
			if err := b.Delete(k); err != nil { // which may move the cursor
				return err
			}
			k, _ = c.Seek(next)
		}
		return nil
	})
}

// Load reads a state; ok is false if there is none of that name.
func (s *Store) Load(name string) (state State, ok bool, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		text := tx.Bucket(bucket).Get([]byte(name))
		if text == nil {
			return nil
		}
		ok = true
		return json.Unmarshal(text, &state)
	})
	if err != nil {
		return State{}, false, fmt.Errorf("drift: stored state %s: %w", name, err)
	}
	return state, ok, nil
}

// Close ends the use of the file.
func (s *Store) Close() error { return s.db.Close() }
